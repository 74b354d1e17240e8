package edge

import (
	"bytes"
	"net/http"
	"regexp"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/services/gateway/internal/forward"
)

// errorWriter holds an answer of the transcoder back where it is an error, so that it can be brought into the form that
// all errors have: the transcoder has some in plain text, some without details, and some under the wrong code.
type errorWriter struct {
	http.ResponseWriter
	code  int // of the error that is held back, 0 where there is none
	wrote bool
	body  bytes.Buffer
}

// WriteHeader implements http.ResponseWriter.
func (w *errorWriter) WriteHeader(code int) {
	if w.wrote {
		return
	}
	w.wrote = true
	if code >= http.StatusBadRequest {
		w.code = code
		return
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements io.Writer.
func (w *errorWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.code != 0 {
		return w.body.Write(p)
	}
	return w.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (w *errorWriter) Flush() {
	if w.wrote && w.code == 0 {
		_ = http.NewResponseController(w.ResponseWriter).Flush() // it fails where the caller has left
	}
}

// Unwrap is for http.ResponseController.
func (w *errorWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// finish writes the error that was held back, if there is one.
func (w *errorWriter) finish(p protocol, origin *forward.Origin) {
	if w.code == 0 {
		return
	}
	var st *spb.Status
	switch p {
	case protocolREST:
		st = parseREST(w.body.Bytes())
	case protocolConnect:
		st = parseConnect(w.body.Bytes())
	}
	code := w.code
	if st != nil {
		st = complete(st, origin)
		code = httpCodeOf(st)
	} else {
		st = statusOf(plain(code), origin.RequestID)
		if p.framed() && code != http.StatusNotFound {
			p = protocolREST // HTTP itself is at fault
		}
	}
	for name := range w.Header() { // trailers have no place behind an error
		if len(name) > len(http.TrailerPrefix) && name[:len(http.TrailerPrefix)] == http.TrailerPrefix {
			w.Header().Del(name)
		}
	}
	writeStatus(w.ResponseWriter, p, code, st)
}

// plain returns the error that stands for an HTTP status that the transcoder gave in plain text.
func plain(code int) *fault.Fault {
	switch code {
	case http.StatusNotFound:
		return errNoPath
	case http.StatusMethodNotAllowed:
		return errMethod
	case http.StatusUnsupportedMediaType:
		return errMediaType
	case http.StatusHTTPVersionNotSupported:
		return errVersion
	case http.StatusBadRequest:
		return forward.ErrMalformed
	default:
		return errInternal
	}
}

var (
	badParameter     = regexp.MustCompile(`^invalid parameter "([\w.]+)"`)
	unknownParameter = regexp.MustCompile(`in field path "([\w.]+)"`)
)

// complete returns a status with the details that every error has. One of the transcoder's own has none.
func complete(st *spb.Status, origin *forward.Origin) *spb.Status {
	if detail[*errdetails.ErrorInfo](st) != nil {
		if detail[*errdetails.RequestInfo](st) == nil {
			if d, err := anypb.New(&errdetails.RequestInfo{RequestId: origin.RequestID}); err == nil {
				st.Details = append(st.Details, d)
			}
		}
		return st
	}
	ended, ok := origin.Code()
	switch code := codes.Code(st.GetCode()); {
	case code == codes.Unknown && ok && ended == codes.OK:
		return statusOf(errInternal, origin.RequestID) // the answer could not be put into JSON
	case code == codes.Unknown, code == codes.InvalidArgument && origin.Failed():
		return statusOf(malformedParameter(st.GetMessage()), origin.RequestID)
	case code == codes.ResourceExhausted && origin.Failed():
		return statusOf(forward.ErrTooLarge, origin.RequestID)
	default:
		return statusOf(grpcfault.FromStatus(st), origin.RequestID)
	}
}

// malformedParameter returns the fault of a request whose path, query or body does not fit, by what the transcoder
// says of it. Its text repeats values, which may be secret; ours does not.
func malformedParameter(text string) *fault.Fault {
	if m := badParameter.FindStringSubmatch(text); m != nil {
		return forward.ErrMalformed.WithViolation(m[1], "json.value", "the value does not fit the field")
	}
	if m := unknownParameter.FindStringSubmatch(text); m != nil {
		return forward.ErrMalformed.WithViolation(m[1], "json.unknown_field", "there is no such field")
	}
	return forward.ErrMalformed
}
