package users

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/concordat-dev/concordat/kit/fault"
)

func TestEmailsAreOneWhereTheirKeysAre(t *testing.T) {
	for _, row := range []struct {
		name  string
		a, b  string
		equal bool
	}{
		{"letter case does not count", "Ada@Example.COM", "ada@example.com", true},
		{"space around it does not count", "\u00a0 ada@example.com\n", "ada@example.com", true},
		{"composed and decomposed are one", "rene\u0301@example.com", "ren\u00e9@example.com", true},
		{"case and composition together", "RENE\u0301@EXAMPLE.COM", "ren\u00e9@example.com", true},
		{"composed and decomposed domains are one", "a@bu\u0308cher.example", "a@b\u00fccher.example", true},
		{"a domain in punycode is the domain", "a@xn--bcher-kva.example", "a@b\u00fccher.example", true},
		{"a domain in punycode, in upper case too", "a@XN--BCHER-KVA.example", "a@B\u00dcCHER.EXAMPLE", true},
		{"an ideographic full stop is a dot", "a@b\u00fccher\u3002example", "a@b\u00fccher.example", true},
		{"full-width letters are letters", "\uff41\uff44\uff41@example.com", "ada@example.com", true},
		{"full-width letters in a domain are letters", "ada@\uff45xample.com", "ada@example.com", true},
		{"sharp s is double s", "Stra\u00dfe@example.com", "STRASSE@example.com", true},
		{"a domain with sharp s is a domain of its own", "a@stra\u00dfe.de", "a@strasse.de", false},
		{"a domain with sharp s is the one in punycode", "a@stra\u00dfe.de", "a@xn--strae-oqa.de", true},
		{"final sigma is sigma", "\u039f\u0394\u039f\u03a3@example.com", "\u03bf\u03b4\u03bf\u03c2@example.com", true},
		{"the sign of Kelvin is a k", "\u212a@example.com", "k@example.com", true},
		{"a dotted capital I is an i with a dot above", "\u0130@example.com", "i\u0307@example.com", true},
		{"a dotted capital I is no i", "\u0130@example.com", "i@example.com", false},
		{"a dotless i is no i", "\u0131@example.com", "i@example.com", false},
		{"a dotless i is not what I is", "\u0131@example.com", "I@example.com", false},
		{"another letter is another email", "ada@example.com", "adb@example.com", false},
		{"a letter of another alphabet is another letter", "ad\u0430@example.com", "ada@example.com", false},
		{"a dot counts", "a.da@example.com", "ada@example.com", false},
		{"a tag counts", "ada+x@example.com", "ada@example.com", false},
		{"another domain is another email", "ada@example.com", "ada@example.org", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, err := ParseEmail("email", row.a)
			if err != nil {
				t.Fatalf("%q: %v", row.a, err)
			}
			b, err := ParseEmail("email", row.b)
			if err != nil {
				t.Fatalf("%q: %v", row.b, err)
			}
			if (a.Key == b.Key) != row.equal {
				t.Errorf("keys %+q and %+q, want equal: %t", a.Key, b.Key, row.equal)
			}
			if a.Text != strings.TrimSpace(row.a) {
				t.Errorf("shown as %+q", a.Text)
			}
		})
	}
}

func TestTheKeyOfAnEmailNeverChanges(t *testing.T) {
	// Keys are stored: another one for the same email would give it to a second user.
	for text, want := range map[string]string{
		"Ada.King+x@Example.COM":          "ada.king+x@example.com",
		"o'hara!#$%&*/=?^_`{|}~-@a.b":     "o'hara!#$%&*/=?^_`{|}~-@a.b",
		"Ren\u00c9@xn--bcher-kva.Example": "ren\u00e9@b\u00fccher.example",
		"\u0639\u0645\u0631@example.com":  "\u0639\u0645\u0631@example.com",
		"\u7528\u6237@\u4f8b\u3048.jp":    "\u7528\u6237@\u4f8b\u3048.jp",
		"ada@localhost":                   "ada@localhost",
		"ada@a-b.example":                 "ada@a-b.example",
	} {
		if got, err := ParseEmail("email", text); err != nil || got.Key != want {
			t.Errorf("%q: %+q, %v; want %+q", text, got.Key, err, want)
		}
	}
}

func TestWhatIsNoEmailIsRefusedWithItsRule(t *testing.T) {
	local64, domain := strings.Repeat("x", 64), strings.Repeat(strings.Repeat("y", 61)+".", 3)
	longest := local64 + "@" + domain + "zz" // 64 + 1 + 186 + 2
	if _, err := ParseEmail("email", longest+"z"); err != nil || len(longest) != 253 {
		t.Errorf("254 bytes are taken: %v", err)
	}
	for _, row := range []struct{ name, text, rule string }{
		{"nothing", "", "email.syntax"},
		{"spaces", "  ", "email.syntax"},
		{"no @", "ada", "email.syntax"},
		{"nothing before the @", "@example.com", "email.syntax"},
		{"nothing behind the @", "ada@", "email.syntax"},
		{"a full-width @", "ada\uff20example.com", "email.syntax"},
		{"255 bytes", longest + "zz", "email.length"},
		{"255 bytes in fewer characters", "a@" + strings.Repeat("\u00fc", 126) + ".", "email.length"},
		{"a local part of 65 bytes", local64 + "x@example.com", "email.length"},
		{"two @", "ada@x@example.com", "email.local_part"},
		{"a dot at the beginning", ".ada@example.com", "email.local_part"},
		{"a dot at the end", "ada.@example.com", "email.local_part"},
		{"two dots", "a..da@example.com", "email.local_part"},
		{"quotes", `"ada"@example.com`, "email.local_part"},
		{"a comment", "ada(x)@example.com", "email.local_part"},
		{"a comma", "ada,bob@example.com", "email.local_part"},
		{"a full-width parenthesis", "ada\uff08\u00e9@example.com", "email.local_part"},
		{"a picture", "\U0001f600@example.com", "email.local_part"},
		{"a mark at the beginning", "\u0301a@example.com", "email.local_part"},
		{"directions mixed", "1\u0639\u0645\u0631@example.com", "email.local_part"},
		{"a space inside", "a da@example.com", "email.characters"},
		{"a no-break space inside", "a\u00a0da@example.com", "email.characters"},
		{"a line break inside", "ada@example.com\r\nbcc: x", "email.characters"},
		{"NUL", "ada\x00@example.com", "email.characters"},
		{"NUL in the domain", "ada@example\x00.com", "email.characters"},
		{"DEL", "ada\x7f@example.com", "email.characters"},
		{"a zero-width space", "a\u200bda@example.com", "email.characters"},
		{"a zero-width space in the domain", "ada@exa\u200bmple.com", "email.characters"},
		{"a zero-width joiner", "a\u200dda@example.com", "email.characters"},
		{"a byte order mark", "\ufeffada@example.com", "email.characters"},
		{"a word joiner", "a\u2060da@example.com", "email.characters"},
		{"a soft hyphen in the domain", "ada@exam\u00adple.com", "email.characters"},
		{"right-to-left override", "ada\u202e@example.com", "email.characters"},
		{"an isolate", "\u2066ada@example.com", "email.characters"},
		{"a Hangul filler", "ada\u3164@example.com", "email.characters"},
		{"a variation selector", "ada\ufe0f@example.com", "email.characters"},
		{"a combining grapheme joiner", "a\u034fda@example.com", "email.characters"},
		{"private use", "ada\ue000@example.com", "email.characters"},
		{"an unassigned character", "ada\u0378@example.com", "email.characters"},
		{"bytes that are no UTF-8", "ada\xff@example.com", "email.characters"},
		{"an empty label", "ada@example..com", "email.domain"},
		{"a dot behind the domain", "ada@example.com.", "email.domain"},
		{"a hyphen at the beginning of a label", "ada@-example.com", "email.domain"},
		{"a hyphen at the end of a label", "ada@example-.com", "email.domain"},
		{"an underscore", "ada@ex_ample.com", "email.domain"},
		{"a label of 64 bytes", "ada@" + strings.Repeat("x", 64) + ".com", "email.domain"},
		{"an address literal", "ada@[192.0.2.1]", "email.domain"},
		{"an IP address", "ada@192.0.2.1", "email.domain"},
		{"punycode of nothing", "ada@xn--a.com", "email.domain"},
		{"punycode of ASCII", "ada@xn--abc-.com", "email.domain"},
		{"a symbol in the domain that maps to a slash", "ada@ex\u2100.com", "email.domain"},
		{"directions mixed in the domain", "ada@1\u0639\u0645\u0631.com", "email.domain"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := ParseEmail("user.email", row.text)
			f, ok := fault.As(err)
			if !ok || !errors.Is(err, ErrEmailInvalid) || got != (Email{}) {
				t.Fatalf("got %+v, %v", got, err)
			}
			if v := f.Violations(); len(v) != 1 || v[0].Field != "user.email" || v[0].Rule != row.rule {
				t.Errorf("violations %+v, want %s", v, row.rule)
			}
		})
	}
}

// FuzzEmail looks for an email whose key is not what a key is.
func FuzzEmail(f *testing.F) {
	for _, seed := range []string{
		"Ada@Example.com", "ren\u0065\u0301@b\u00fccher.example", "a@xn--bcher-kva.example", "\u0130@\u0131.com", "a\u200b@b", "\ufb01@\uff41.com",
		"\u1fb3\u0301@x.gr", "\u0345a@b.c", "a@\u00df.de", "x@xn--\u00fc.de", "\u1e9e@x", "a.\u00e9.b@c", "@", "\x00@\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := ParseEmail("email", text)
		if err != nil {
			if !errors.Is(err, ErrEmailInvalid) {
				t.Fatalf("%+q: %v", text, err)
			}
			return
		}
		if len(e.Text) > maxEmail || !utf8.ValidString(e.Key) || strings.Count(e.Key, "@") != 1 {
			t.Fatalf("%+q: %+v", text, e)
		}
		for _, same := range []string{" " + e.Text + "\n", e.Key} {
			again, err := ParseEmail("email", same)
			if len(same) > maxEmail || strings.IndexByte(same, '@') > maxLocal {
				continue // a key may be longer than its email
			}
			if err != nil || again.Key != e.Key {
				t.Fatalf("%+q has the key %+q, and %+q has %+q, %v", text, e.Key, same, again.Key, err)
			}
		}
		if at := strings.IndexByte(e.Key, '@'); EmailKeyPrefix(e.Key[:at+1]) != e.Key[:at+1] {
			t.Fatalf("the beginning of %+q is %+q", e.Key, EmailKeyPrefix(e.Key[:at+1]))
		}
	})
}

func TestTheBeginningOfAnEmailIsThatOfItsKey(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"", ""},
		{"Ada", "ada"},
		{"Ren\u0065\u0301", "ren\u00e9"},
		{"Ada@", "ada@"},
		{"ada@Exam", "ada@exam"},
		{"ada@B\u00fcch", "ada@b\u00fcch"},
		{"ada@xn--bcher-kva.ex", "ada@b\u00fccher.ex"},
		{"ada@mail.xn--bcher-kva.", "ada@mail.b\u00fccher."},
		{"50%_", "50%_"},
	} {
		if got := EmailKeyPrefix(row.text); got != row.want {
			t.Errorf("%+q: %+q, want %+q", row.text, got, row.want)
		}
	}
}
