package settings

import (
	"fmt"
	"log/slog"
)

// Secret is a value that does not print: not with fmt, slog or encoding/json. A field of this type is a secret
// setting without the tag. Keep it in exported fields, and out of the keys of maps: fmt does not ask the type
// of an unexported field how it wants to be printed.
type Secret string

// hidden is what a secret prints as, whether or not it is set.
const hidden = "[secret]"

// Reveal returns the value itself, for the one place that uses it.
func (s Secret) Reveal() string { return string(s) }

// String returns "[secret]".
func (Secret) String() string { return hidden }

// Format prints "[secret]" for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// LogValue logs "[secret]".
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalJSON writes "[secret]".
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// MarshalText writes "[secret]".
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
