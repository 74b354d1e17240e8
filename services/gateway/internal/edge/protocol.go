package edge

import (
	"mime"
	"net/http"
	"strings"
)

// protocol is what a request speaks.
type protocol int

const (
	protocolREST          protocol = iota // JSON by google.api.http; pages too
	protocolConnect                       // Connect, one message each way
	protocolConnectStream                 // Connect, streams
	protocolGRPCWeb
	protocolGRPC
)

// String returns the name for the log.
func (p protocol) String() string {
	switch p {
	case protocolConnect, protocolConnectStream:
		return "connect"
	case protocolGRPCWeb:
		return "grpc-web"
	case protocolGRPC:
		return "grpc"
	default:
		return "rest"
	}
}

// contentType returns the content type of an error in a protocol of frames.
func (p protocol) contentType() string {
	switch p {
	case protocolConnectStream:
		return "application/connect+json" // the end of a stream is JSON, whatever the messages are
	case protocolGRPCWeb:
		return "application/grpc-web+proto"
	default:
		return "application/grpc+proto"
	}
}

// framed reports whether the body is frames, of which there may be many.
func (p protocol) framed() bool {
	return p == protocolConnectStream || p == protocolGRPCWeb || p == protocolGRPC
}

// protocolOf returns what a request speaks, by its content type and by whether its path is that of a method. ok is false
// for a request with several content types. A JSON content type is brought to the form that the transcoder knows.
func protocolOf(r *http.Request, isMethod bool) (p protocol, ok bool) {
	values := r.Header.Values("Content-Type")
	if len(values) > 1 {
		return protocolREST, false
	}
	p = protocolREST
	if isMethod {
		p = protocolConnect
	}
	if len(values) == 0 {
		return p, true
	}
	switch ct := values[0]; {
	case strings.HasPrefix(ct, "application/connect+"):
		return protocolConnectStream, true
	case ct == "application/grpc-web", strings.HasPrefix(ct, "application/grpc-web+"):
		return protocolGRPCWeb, true
	case ct == "application/grpc", strings.HasPrefix(ct, "application/grpc+"):
		return protocolGRPC, true
	default:
		if media, params, err := mime.ParseMediaType(ct); err == nil && media == "application/json" {
			if charset := params["charset"]; charset == "" || strings.EqualFold(charset, "utf-8") {
				r.Header.Set("Content-Type", "application/json")
			}
		}
		return p, true
	}
}
