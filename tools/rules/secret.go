package rules

import (
	"regexp"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Names of secrets: as texts or bytes, and those that are numbers as often.
var (
	secretText   = regexp.MustCompile(`(^|_)(password|passwd|passphrase|secret|token|code|otp|totp|pin|credential|api_key|private_key|cvv|cvc)s?($|_)`)
	secretNumber = regexp.MustCompile(`(^|_)(otp|totp|pin|cvv|cvc)s?($|_)`)
)

// harmless reports whether a name that could be a secret's is none: tokens that only say where a list or a stream goes
// on, codes that everybody knows, and the ids and times of secrets, by which one speaks of them.
func harmless(name string) bool {
	switch name {
	case "resume_token", "page_token", "next_page_token",
		"country_code", "region_code", "language_code", "currency_code", "postal_code", "zip_code", "area_code":
		return true
	}
	return strings.HasSuffix(name, "_id") || strings.HasSuffix(name, "_ids") || strings.HasSuffix(name, "_at")
}

// looksSecret reports whether a field is a secret by its name and type. An enum is none, whatever it is called, nor is
// a message: its fields are looked at by themselves.
func looksSecret(fd protoreflect.FieldDescriptor) bool {
	name := string(fd.Name())
	if harmless(name) {
		return false
	}
	value := fd
	if fd.IsMap() {
		value = fd.MapValue()
	}
	switch element(value) {
	case protoreflect.StringKind, protoreflect.BytesKind:
		return secretText.MatchString(name)
	case protoreflect.EnumKind, protoreflect.BoolKind, protoreflect.MessageKind, protoreflect.GroupKind:
		return false
	default:
		return secretNumber.MatchString(name)
	}
}

func fieldSecretRedacted(c *Contract, report Report) {
	c.messages(func(md protoreflect.MessageDescriptor) {
		for i := range md.Fields().Len() {
			fd := md.Fields().Get(i)
			if options, _ := c.fieldOptions(fd); looksSecret(fd) && !options.GetDebugRedact() {
				report(fd, "looks like a secret and would be printed: add debug_redact = true, or give it a name that is none")
			}
		}
	})
}

// isSecret reports whether a field is one by what the contract says of it, or by its name.
func (c *Contract) isSecret(fd protoreflect.FieldDescriptor) bool {
	options, _ := c.fieldOptions(fd)
	return options.GetDebugRedact() || looksSecret(fd)
}

// secretIn returns the first secret in a message or in those that it holds; nil where there is none.
func (c *Contract) secretIn(md protoreflect.MessageDescriptor) protoreflect.FieldDescriptor {
	seen := map[protoreflect.FullName]bool{}
	var find func(protoreflect.MessageDescriptor) protoreflect.FieldDescriptor
	find = func(md protoreflect.MessageDescriptor) protoreflect.FieldDescriptor {
		if seen[md.FullName()] {
			return nil
		}
		seen[md.FullName()] = true
		for i := range md.Fields().Len() {
			fd := md.Fields().Get(i)
			if c.isSecret(fd) {
				return fd
			}
			if inside := content(fd); inside != nil {
				if secret := find(inside); secret != nil {
					return secret
				}
			}
		}
		return nil
	}
	return find(md)
}
