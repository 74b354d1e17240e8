package users

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
	"golang.org/x/text/width"
)

// The limits of an email, in bytes (RFC 5321 section 4.5.3.1, with erratum 1690).
const (
	maxEmail  = 254
	maxLocal  = 64
	maxDomain = 253
)

// Email is an address to write to.
type Email struct {
	Text string // as it was given, without space around it
	// Key is what is unique about it: two emails are the same when their keys are. It is the folded local part, an "@" and the
	// domain as Unicode writes it; ParseEmail has the rules.
	Key string
}

// ParseEmail returns the email that a text says, without space around it. It returns ErrEmailInvalid, with a violation of field, for
// what it does not take.
//
// The local part is a dot-atom (RFC 5321) of ASCII and of the letters and digits of the PRECIS IdentifierClass (RFC 8264, RFC 6531); a
// quoted one is not taken. Its key is folded: full case folding and NFC, and the full-width forms of characters are
// the characters. So ß is ss, a final sigma is a sigma and İ is an i with a dot above; a dotless ı is another letter than i, as it is for
// Unicode. Dots and tags count.
//
// The domain is mapped and checked by IDNA2008 (RFC 5891, UTS 46 without transitional processing), so that its two spellings have
// one key; an address literal, such as [192.0.2.1], is not taken.
//
// Nowhere is a character taken that shows nothing, changes the direction of the text, is for private use or is not assigned.
// Letters of different alphabets that look alike are different letters.
func ParseEmail(field, text string) (Email, error) {
	text = strings.TrimSpace(text)
	key, f := emailKey(text)
	if f != nil {
		return Email{}, ErrEmailInvalid.WithViolation(field, f.rule, f.text).Because(f.cause)
	}
	return Email{Text: text, Key: key}, nil
}

// emailFlaw is why a text is no email.
type emailFlaw struct {
	rule, text string
	cause      error
}

func emailKey(text string) (string, *emailFlaw) {
	at := strings.LastIndexByte(text, '@')
	switch {
	case len(text) > maxEmail || at > maxLocal:
		return "", &emailFlaw{rule: "email.length", text: "must have up to 254 bytes, of which up to 64 before the @"}
	case !visible(text):
		return "", &emailFlaw{rule: "email.characters", text: "must have only characters that are seen: no spaces, control or format characters, nor unassigned ones"}
	case at <= 0 || at == len(text)-1:
		return "", &emailFlaw{rule: "email.syntax", text: "must be a local part, an @ and a domain"}
	}
	local, err := localKey(text[:at])
	if err != nil {
		return "", &emailFlaw{rule: "email.local_part", text: "must have before the @ letters, digits, single dots between them and the signs that RFC 5321 allows, without quotes", cause: err}
	}
	domain, err := domainKey(text[at+1:])
	if err != nil {
		return "", &emailFlaw{rule: "email.domain", text: "must have behind the @ a domain name, international ones by IDNA2008", cause: err}
	}
	return local + "@" + domain, nil
}

// visible says whether text is valid UTF-8 whose every character shows something.
func visible(text string) bool {
	if !utf8.ValidString(text) {
		return false
	}
	for _, r := range text {
		switch {
		case r > ' ' && r < utf8.RuneSelf-1:
		case !unicode.IsGraphic(r), unicode.IsSpace(r), unicode.In(r, unicode.Zs, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector):
			return false
		}
	}
	return true
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// errNotDotAtom, errNotIdentifier and errNotDomain are for logs; the violation says it to the caller.
var (
	errNotDotAtom    = errors.New("not a dot-atom")
	errNotIdentifier = errors.New("not stable under folding, or begins with a mark")
	errNotDomain     = errors.New("not a domain name")
)

// localKey returns the folded form of a visible local part.
func localKey(local string) (string, error) {
	key := strings.ToLower(local)
	if !isASCII(local) {
		var err error
		if key, err = foldLocal(local); err != nil {
			return "", err
		}
	}
	dot := true
	for i := range len(key) {
		c := key[i]
		switch {
		case c == '.' && dot:
			return "", errNotDotAtom
		case c != '.' && c < utf8.RuneSelf && !isAtom(c):
			return "", errNotDotAtom
		}
		dot = c == '.'
	}
	if dot {
		return "", errNotDotAtom
	}
	return key, nil
}

// isAtom says whether an ASCII character is atext (RFC 5322 section 3.2.3).
func isAtom(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// foldLocal folds an international local part, and refuses what PRECIS does not have in an identifier.
func foldLocal(local string) (string, error) {
	key := fold(local)
	if fold(key) != key {
		return "", errNotIdentifier
	}
	if first, _ := utf8.DecodeRuneInString(key); unicode.Is(unicode.M, first) {
		return "", errNotIdentifier
	}
	return precis.NewIdentifier(precis.Norm(norm.NFC), precis.BidiRule).String(key)
}

// fold brings what is the same to a reader into one form: canonical caseless matching (Unicode section 3.13), composed, with
// full-width forms as what they are forms of.
func fold(text string) string {
	// A Caser may hold state, so each call has its own.
	return norm.NFC.String(cases.Fold().String(norm.NFD.String(width.Fold.String(text))))
}

// domainKey returns the Unicode form of a visible domain, which both of its spellings have.
func domainKey(domain string) (string, error) {
	if plain(domain) {
		return checkDomain(strings.ToLower(domain))
	}
	profile := idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true))
	ascii, err := profile.ToASCII(domain)
	if err != nil {
		return "", err
	}
	if _, err := checkDomain(ascii); err != nil {
		return "", err
	}
	return profile.ToUnicode(ascii)
}

// plain says whether a domain is one of ASCII letters, digits, dots and single hyphens, of which IDNA has nothing to say but what
// checkDomain does.
func plain(domain string) bool {
	for i := range len(domain) {
		c := domain[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && c != '.' && (c != '-' || i > 0 && domain[i-1] == '-') {
			return false
		}
	}
	return true
}

// checkDomain returns an ASCII domain, or an error if it is no host name (RFC 1123), has an empty label or ends with a number, as
// an IP address does.
func checkDomain(domain string) (string, error) {
	if len(domain) > maxDomain {
		return "", errNotDomain
	}
	labels := strings.Split(domain, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", errNotDomain
		}
	}
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return "", errNotDomain
	}
	return domain, nil
}

// EmailKeyPrefix returns the beginning of the keys of the emails that begin with a text, as far as that can be said of a part: the part
// before the @ is folded, and of the domain every label that is complete is brought into its Unicode form.
func EmailKeyPrefix(text string) string {
	local, domain, found := strings.Cut(strings.TrimSpace(text), "@")
	key := fold(local)
	if !found {
		return key
	}
	labels := strings.Split(strings.ToLower(norm.NFC.String(domain)), ".")
	for i, label := range labels[:len(labels)-1] {
		if whole, err := domainKey(label + ".x"); err == nil {
			labels[i] = strings.TrimSuffix(whole, ".x")
		}
	}
	return key + "@" + strings.Join(labels, ".")
}
