package telemetry

import (
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
)

func TestAClientIsBelievedToBeWhatFitsALine(t *testing.T) {
	for name, tc := range map[string]struct {
		said []string
		want string
	}{
		"nothing":                      {nil, ""},
		"what the kit says":            {[]string{"payments/v1.2.3-0.20261121+dirty"}, "payments/v1.2.3-0.20261121+dirty"},
		"as long as it may be":         {[]string{strings.Repeat("x", 64)}, strings.Repeat("x", 64)},
		"longer":                       {[]string{strings.Repeat("x", 65)}, ""},
		"twice":                        {[]string{"a/1", "b/1"}, ""},
		"a space":                      {[]string{"a b"}, ""},
		"what forges another field":    {[]string{`a" code="OK`}, ""},
		"a line of its own":            {[]string{"a\nb"}, ""},
		"a letter beyond ASCII":        {[]string{"é"}, ""},
		"an empty text":                {[]string{""}, ""},
		"what a terminal would act on": {[]string{"\x1b[2J"}, ""},
	} {
		if got := ClientOf(metadata.MD{ClientHeader: tc.said}); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}
