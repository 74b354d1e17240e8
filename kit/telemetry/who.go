package telemetry

import "google.golang.org/grpc/metadata"

// ClientHeader is the metadata by which a client says what it is: "<name>/<version>".
const ClientHeader = "x-concordat-client"

// maxClient is how long what a client says it is may be, in bytes.
const maxClient = 64

// clientAttribute is the attribute of a span that has it.
const clientAttribute = "concordat.client"

// ClientOf returns what the client says it is: up to 64 letters, digits and "/._+-", said once. It is "" where the
// client says nothing, or anything else. It proves nothing, and is for the log and for spans: as a label it would let
// every caller make series.
func ClientOf(header metadata.MD) string {
	v := header[ClientHeader]
	if len(v) != 1 || len(v[0]) > maxClient {
		return ""
	}
	for i := range len(v[0]) {
		switch c := v[0][i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '/', c == '.', c == '_', c == '+', c == '-':
		default:
			return ""
		}
	}
	return v[0]
}
