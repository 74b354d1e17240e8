package edge

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/grpcfault"
	"github.com/concordat-dev/concordat/services/gateway/internal/forward"
)

// What only HTTP can get wrong.
var (
	errNoPath    = fault.New(fault.Unimplemented, "UNIMPLEMENTED", "there is nothing at this path").WithDomain(fault.Domain)
	errMethod    = fault.New(fault.Unimplemented, "UNIMPLEMENTED", "the path does not take this HTTP method").WithDomain(fault.Domain)
	errMediaType = fault.New(fault.InvalidArgument, "MALFORMED_REQUEST", "the path does not take this content type").WithDomain(fault.Domain)
	// errQuery: the route takes its whole message from the body.
	errQuery    = fault.New(fault.InvalidArgument, "MALFORMED_REQUEST", "the path takes everything from the body and nothing from a query").WithDomain(fault.Domain)
	errHeaders  = fault.New(fault.ResourceExhausted, "MESSAGE_TOO_LARGE", "the headers of the request are larger than the edge takes").WithDomain(fault.Domain)
	errVersion  = fault.New(fault.Unimplemented, "UNIMPLEMENTED", "the call needs HTTP/2").WithDomain(fault.Domain)
	errSlow     = fault.New(fault.DeadlineExceeded, "DEADLINE_EXCEEDED", "the body of the request did not come in time").WithDomain(fault.Domain)
	errInternal = fault.New(fault.Internal, "INTERNAL", "internal error").WithDomain(fault.Domain)
)

// httpCode maps a gRPC code to HTTP as google.rpc.Code says.
func httpCode(code codes.Code) int {
	switch code {
	case codes.OK:
		return http.StatusOK
	case codes.Canceled:
		return 499 // client closed request
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// httpCodeOf is httpCode of a whole status: what is too large is not the same as too often.
func httpCodeOf(st *spb.Status) int {
	if info := detail[*errdetails.ErrorInfo](st); info.GetReason() == forward.ErrTooLarge.Reason() && info.GetDomain() == fault.Domain {
		return http.StatusRequestEntityTooLarge
	}
	return httpCode(codes.Code(st.GetCode()))
}

// detail returns the first detail of that type, nil where there is none.
func detail[T proto.Message](st *spb.Status) T {
	var none T
	for _, d := range st.GetDetails() {
		if m, err := d.UnmarshalNew(); err == nil {
			if t, ok := m.(T); ok {
				return t
			}
		}
	}
	return none
}

// statusOf returns the status of an error that is ours.
func statusOf(err error, requestID string) *spb.Status {
	return grpcfault.Status(err, fault.Domain, &errdetails.RequestInfo{RequestId: requestID})
}

// jsonOptions are how messages look in JSON, errors included.
var jsonOptions = protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}

// writeStatus answers a request with an error, in the words of the protocol that it speaks. code is the HTTP status, of
// which gRPC, gRPC-Web and streams of Connect know 200 alone.
func writeStatus(w http.ResponseWriter, p protocol, code int, st *spb.Status) {
	h := w.Header()
	for _, name := range []string{"Content-Length", "Content-Encoding", "Trailer"} {
		h.Del(name)
	}
	var body []byte
	switch p {
	case protocolGRPC, protocolGRPCWeb:
		h.Set("Content-Type", p.contentType())
		setStatus(h, st)
		code = http.StatusOK
	case protocolConnectStream:
		h.Set("Content-Type", p.contentType())
		body = endOfStream(st)
		code = http.StatusOK
	case protocolConnect:
		h.Set("Content-Type", "application/json")
		body = connectError(st)
		hints(h, code, st)
	default:
		h.Set("Content-Type", "application/json")
		body = restError(st)
		hints(h, code, st)
	}
	w.WriteHeader(code)
	_, _ = w.Write(body) // the caller may have left
}

// setStatus puts a status where gRPC has it.
func setStatus(h http.Header, st *spb.Status) {
	h.Set("Grpc-Status", strconv.Itoa(int(st.GetCode())))
	h.Set("Grpc-Message", visible(st.GetMessage()))
	if details, err := proto.Marshal(st); err == nil {
		h.Set("Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(details))
	}
}

// visible returns the printable ASCII of a text, "%" aside, which needs no encoding in a gRPC header.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '%' {
			return -1
		}
		return r
	}, s)
}

// hints adds the headers that HTTP has for what the status says.
func hints(h http.Header, code int, st *spb.Status) {
	if retry := detail[*errdetails.RetryInfo](st); retry != nil {
		seconds := math.Ceil(retry.GetRetryDelay().AsDuration().Seconds())
		h.Set("Retry-After", strconv.Itoa(max(1, int(seconds))))
	}
	if code == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
}

// restError returns the google.rpc.Status in JSON.
func restError(st *spb.Status) []byte {
	b, err := jsonOptions.Marshal(st)
	if err != nil { // a detail of a type that this build does not know
		b, _ = jsonOptions.Marshal(&spb.Status{Code: st.GetCode(), Message: st.GetMessage()})
	}
	return b
}

// The error of the Connect protocol.
type (
	connectErrorJSON struct {
		Code    string              `json:"code"`
		Message string              `json:"message,omitempty"`
		Details []connectDetailJSON `json:"details,omitempty"`
	}
	connectDetailJSON struct {
		Type  string          `json:"type"`
		Value string          `json:"value"`
		Debug json.RawMessage `json:"debug,omitempty"`
	}
	endOfStreamJSON struct {
		Error connectErrorJSON `json:"error"`
	}
)

func connectErrorOf(st *spb.Status) connectErrorJSON {
	e := connectErrorJSON{Code: connect.Code(st.GetCode()).String(), Message: st.GetMessage()}
	for _, d := range st.GetDetails() {
		dj := connectDetailJSON{Type: string(d.MessageName()), Value: base64.RawStdEncoding.EncodeToString(d.GetValue())}
		if m, err := d.UnmarshalNew(); err == nil {
			if debug, err := jsonOptions.Marshal(m); err == nil {
				dj.Debug = debug
			}
		}
		e.Details = append(e.Details, dj)
	}
	return e
}

func connectError(st *spb.Status) []byte {
	b, err := json.Marshal(connectErrorOf(st))
	if err != nil { // it cannot: everything in it is text
		return []byte(`{"code":"internal"}`)
	}
	return b
}

// endOfStream returns the last message of a stream of Connect.
func endOfStream(st *spb.Status) []byte {
	b, err := json.Marshal(endOfStreamJSON{connectErrorOf(st)})
	if err != nil {
		b = []byte(`{"error":{"code":"internal"}}`)
	}
	const endFlag = 2
	return append(binary.BigEndian.AppendUint32([]byte{endFlag}, uint32(len(b))), b...)
}

// parseREST and parseConnect read an error that the transcoder wrote. They return nil for what is none.
func parseREST(body []byte) *spb.Status {
	st := &spb.Status{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, st); err != nil || st.GetCode() == 0 {
		return nil
	}
	return st
}

func parseConnect(body []byte) *spb.Status {
	var e connectErrorJSON
	var code connect.Code
	if json.NewDecoder(bytes.NewReader(body)).Decode(&e) != nil || code.UnmarshalText([]byte(e.Code)) != nil {
		return nil
	}
	st := &spb.Status{Code: int32(code), Message: e.Message}
	for _, d := range e.Details {
		if value, err := base64.RawStdEncoding.DecodeString(d.Value); err == nil {
			st.Details = append(st.Details, &anypb.Any{TypeUrl: "type.googleapis.com/" + d.Type, Value: value})
		}
	}
	return st
}
