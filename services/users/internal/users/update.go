package users

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/concordat-dev/concordat/kit/fault"
)

// MaxLabels is how many labels a user has at most.
const MaxLabels = 64

// Update is a request to change what is known of a user.
type Update struct {
	Target
	// Paths are the fields to change, as users.v1.UpdateUserRequest.update_mask names them; at least one.
	Paths []string
	// Values has the new values. One that Paths names and that is not set is cleared.
	Values Values
	// Privileged says whether the caller may say that an email is verified.
	Privileged bool
	CheckOnly  bool // whether only to say what the user would be
}

// Values are the fields of a user that an Update can change.
type Values struct {
	Email       string
	DisplayName string
	FirstName   string
	LastName    string
	Address     *Address
	Verified    bool
	Labels      map[string]string
}

// Update changes the fields of a user that the request names, and returns the user as it is then. A change of the email makes it
// unverified, unless the same request says otherwise.
//
// Errors: ErrNotFound, ErrMaskInvalid, ErrEmailInvalid (on user.email), ErrFieldNotYours, ErrEmailTaken, ErrETagMismatch, ErrDeleted,
// ErrErased, ErrRequestIDReused.
func (s *Service) Update(ctx context.Context, r Update) (User, error) {
	edits, err := r.edits()
	if err != nil {
		return User{}, err
	}
	now := s.now()
	u, err := s.Store.Change(ctx, Change{
		Claim: r.claim(now, r.digest()),
		ID:    r.ID,
		Mode:  Mode(r.CheckOnly),
		Apply: func(u User) (User, EventType, error) {
			if err := r.usable(u); err != nil {
				return User{}, "", err
			}
			next, err := r.apply(u, edits)
			if err != nil {
				return User{}, "", err
			}
			return u.became(next, now), EventUpdated, nil
		},
	})
	if err != nil {
		return User{}, fmt.Errorf("update user %s: %w", r.ID, err)
	}
	return u, nil
}

// edit changes one field of a user, which it may because the user is a copy; what the field shares with others it replaces.
type edit func(u *User)

// The rules of a mask.
const (
	ruleUnknown    = "mask.unknown"
	ruleOutputOnly = "mask.output_only"
	ruleAlone      = "mask.alone"
	ruleRequired   = "mask.required"
	ruleLabels     = "mask.labels"
)

// wildcard is the path that means all fields.
const wildcard = "*"

// mutable returns the fields that an update can change, beside single labels and the fields of the address.
func mutable() []string {
	return []string{"email", "display_name", "first_name", "last_name", "verified", "labels", "address"}
}

// outputOnly returns the fields of users.v1.User that an update cannot change.
func outputOnly() []string {
	return []string{"user_id", "state", "etag", "created_at", "updated_at", "deleted_at", "purge_at", "erased_at"}
}

// labelKey is what the key of a label looks like.
var labelKey = regexp.MustCompile(`^[a-z]([a-z0-9_-]{0,61}[a-z0-9])?$`)

// edits returns what the paths mean. It returns ErrMaskInvalid, with all that is wrong, ErrEmailInvalid or ErrFieldNotYours.
func (r Update) edits() ([]edit, error) {
	var edits []edit
	invalid := ErrMaskInvalid
	for i, path := range r.Paths {
		paths := []string{path}
		if path == wildcard {
			paths = mutable()
			if len(r.Paths) > 1 {
				invalid = invalid.WithViolation(pathField(i), ruleAlone, `"*" means all fields and stands alone`)
				continue
			}
		}
		for _, p := range paths {
			if rule, text := r.refuses(p); rule != "" {
				invalid = invalid.WithViolation(pathField(i), rule, strconv.Quote(p)+" "+text)
				continue
			}
			if p == "verified" && !r.Privileged {
				if path != wildcard {
					return nil, ErrFieldNotYours.With("field", p)
				}
				continue // apply sees to it
			}
			e, err := r.edit(p)
			if err != nil {
				return nil, err
			}
			edits = append(edits, e)
		}
	}
	if len(invalid.Violations()) > 0 {
		return nil, invalid
	}
	return edits, nil
}

// pathField names a path of the mask in a violation.
func pathField(i int) string { return "update_mask.paths[" + strconv.Itoa(i) + "]" }

// refuses says which rule a path breaks, "" for none.
func (r Update) refuses(path string) (rule, text string) {
	field, part, nested := strings.Cut(path, ".")
	switch {
	case slices.Contains(outputOnly(), field) && !nested:
		return ruleOutputOnly, "is not changed by an update"
	case !slices.Contains(mutable(), field), nested && !r.hasPart(field, part):
		return ruleUnknown, "is no field that an update can change"
	case path == "email" && strings.TrimSpace(r.Values.Email) == "",
		path == "display_name" && r.Values.DisplayName == "",
		path == "address.country_code" && (r.Values.Address == nil || r.Values.Address.CountryCode == ""):
		return ruleRequired, "must not be cleared"
	default:
		return "", ""
	}
}

func (r Update) hasPart(field, part string) bool {
	switch field {
	case "labels":
		return labelKey.MatchString(part)
	case "address":
		return new(Address).field(part) != nil || part == "lines"
	default:
		return false
	}
}

// field returns where the address keeps a text field of this name, nil if it has none.
func (a *Address) field(name string) *string {
	switch name {
	case "country_code":
		return &a.CountryCode
	case "locality":
		return &a.Locality
	case "administrative_area":
		return &a.AdministrativeArea
	case "postal_code":
		return &a.PostalCode
	default:
		return nil
	}
}

// edit returns what a path means that is not refused. It returns ErrEmailInvalid.
func (r Update) edit(path string) (edit, error) {
	v := r.Values
	switch field, part, nested := strings.Cut(path, "."); {
	case field == "email":
		email, err := ParseEmail("user.email", v.Email)
		return func(u *User) { u.Email = email }, err
	case field == "display_name":
		return func(u *User) { u.DisplayName = v.DisplayName }, nil
	case field == "first_name":
		return func(u *User) { u.FirstName = v.FirstName }, nil
	case field == "last_name":
		return func(u *User) { u.LastName = v.LastName }, nil
	case field == "verified":
		return func(u *User) { u.Verified = v.Verified }, nil
	case field == "labels" && !nested:
		return func(u *User) { u.Labels = v.Labels }, nil
	case field == "labels":
		value, set := v.Labels[part]
		return func(u *User) { u.Labels = withLabel(u.Labels, part, value, set) }, nil
	case !nested:
		return func(u *User) { u.Address = v.Address }, nil
	default:
		return func(u *User) { u.Address = u.Address.with(part, v.Address) }, nil
	}
}

func withLabel(labels map[string]string, key, value string, set bool) map[string]string {
	changed := maps.Clone(labels)
	if changed == nil {
		changed = make(map[string]string, 1)
	}
	delete(changed, key)
	if set {
		changed[key] = value
	}
	return changed
}

// with returns the address with one field as another address has it; where nothing is left, there is no address.
func (a *Address) with(field string, values *Address) *Address {
	var changed, from Address
	if a != nil {
		changed = *a
	}
	if values != nil {
		from = *values
	}
	if field == "lines" {
		changed.Lines = from.Lines
	} else {
		*changed.field(field) = *from.field(field)
	}
	if changed.Equal(&Address{}) {
		return nil
	}
	return &changed
}

// apply returns the user with the edits. It returns ErrFieldNotYours or, where the user would not be one, ErrMaskInvalid.
func (r Update) apply(u User, edits []edit) (User, error) {
	all := slices.Contains(r.Paths, wildcard)
	if all && !r.Privileged && r.Values.Verified != u.Verified {
		return User{}, ErrFieldNotYours.With("field", "verified")
	}
	next := u
	for _, e := range edits {
		e(&next)
	}
	sets := slices.Contains(r.Paths, "verified") || all && r.Privileged
	if next.Email.Text != u.Email.Text && !sets {
		next.Verified = false
	}
	invalid := ErrMaskInvalid
	if n := len(next.Labels); n > MaxLabels {
		invalid = r.because(invalid, "labels", ruleLabels, "would make it "+strconv.Itoa(n)+" labels of 64")
	}
	if next.Address != nil && next.Address.CountryCode == "" {
		invalid = r.because(invalid, "address", ruleRequired, "leaves an address without a country_code")
	}
	if len(invalid.Violations()) > 0 {
		return User{}, invalid
	}
	return next, nil
}

// because adds a violation for the first path that is of a field.
func (r Update) because(f *fault.Fault, field, rule, text string) *fault.Fault {
	i := slices.IndexFunc(r.Paths, func(path string) bool {
		return path == field || path == wildcard || strings.HasPrefix(path, field+".")
	})
	return f.WithViolation(pathField(i), rule, strconv.Quote(r.Paths[i])+" "+text)
}

func (r Update) digest() Digest {
	paths := slices.Clone(r.Paths)
	slices.Sort(paths)
	d := newDigest("users.UpdateUser")
	d.text(1, string(r.ID))
	d.text(2, r.ETag)
	d.list(3, slices.Compact(paths))
	d.text(4, strings.TrimSpace(r.Values.Email))
	d.text(5, r.Values.DisplayName)
	d.text(6, r.Values.FirstName)
	d.text(7, r.Values.LastName)
	d.address(8, r.Values.Address)
	d.flag(9, r.Values.Verified)
	d.labels(10, r.Values.Labels)
	return d.sum()
}

// became returns what a user is after a change: itself where nothing changed, and else the next one, with its revision and time.
func (u User) became(next User, now time.Time) User {
	if next.Equal(u) {
		return u
	}
	next.Revision = u.Revision + 1
	next.UpdatedAt = now
	if now.Before(u.UpdatedAt) {
		next.UpdatedAt = u.UpdatedAt
	}
	return next
}
