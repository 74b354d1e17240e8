package main_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	bin "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// reply is how a call went, whatever it was made over.
type reply struct {
	// status is the error that the server gave; nil where the first answer came, or a stream ended well without one.
	status *spb.Status
	// refused says why there was no connection to call over; nil where there was one.
	refused error
	// all is everything that came back, as it came: headers, body, trailers.
	all string
	// message is the first answer, as protobuf, where it came so; json where it came so.
	message, json []byte
}

// wire is a way to reach a method. body is the request in the wire's encoding; the reply has the first answer, after
// which the call is cancelled. An error is one of the test's own.
type wire interface {
	fmt.Stringer
	call(ctx context.Context, m method, token string, body []byte) (reply, error)
	encode(m proto.Message) ([]byte, error)
	// serves reports whether the method can be called over the wire at all.
	serves(m method) bool
}

// clientTLS returns the configuration of a client that trusts the CA of a PKI directory and shows a certificate, if it
// has one and whether or not the server would accept it.
func clientTLS(t *testing.T, caFile string, cert *tls.Certificate) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("no certificate in %s", caFile)
	}
	return &tls.Config{
		RootCAs: roots, ServerName: "localhost",
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if cert == nil {
				return &tls.Certificate{}, nil
			}
			return cert, nil
		},
	}
}

// rawCodec passes bytes through, so that a test can send what is no message.
type rawCodec struct{}

var _ encoding.CodecV2 = rawCodec{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// grpcWire is native gRPC: through the gateway, or to a service itself.
type grpcWire struct {
	name string
	conn *grpc.ClientConn
}

func dialGRPC(t *testing.T, name, address string, cfg *tls.Config) *grpcWire {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(cfg)), grpc.WithNoProxy(),
		grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &grpcWire{name, conn}
}

func (w *grpcWire) String() string                         { return w.name }
func (w *grpcWire) serves(method) bool                     { return true }
func (w *grpcWire) encode(m proto.Message) ([]byte, error) { return proto.Marshal(m) }

func (w *grpcWire) call(ctx context.Context, m method, token string, body []byte) (reply, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	stream, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, m.path(), grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		if len(status.Convert(err).Proto().GetDetails()) == 0 {
			return reply{refused: err}, nil
		}
		return reply{}, err
	}
	if err := stream.SendMsg(&body); err != nil && !errors.Is(err, io.EOF) { // io.EOF: the status comes by receiving
		return reply{}, err
	}
	if err := stream.CloseSend(); err != nil {
		return reply{}, err
	}
	var first []byte
	err = stream.RecvMsg(&first)
	header, _ := stream.Header()
	r := reply{message: first}
	if err != nil && !errors.Is(err, io.EOF) {
		r.status = status.Convert(err).Proto()
	}
	// Metadata as such prints without its values.
	r.all = fmt.Sprint(map[string][]string(header), map[string][]string(stream.Trailer()), r.status, string(first))
	return r, nil
}

// httpWire is what the HTTP side of the gateway speaks.
type httpWire struct {
	client *http.Client
	base   string // https://host:port
}

func dialHTTP(t *testing.T, address string, cfg *tls.Config) httpWire {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return httpWire{&http.Client{Transport: transport}, "https://" + address}
}

// send makes a request and returns the response with what of its body take wants.
func (w httpWire) send(ctx context.Context, verb, target, contentType, token string, body []byte, take func(io.Reader) ([]byte, error)) (*http.Response, []byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, verb, w.base+target, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	data, err := take(resp.Body)
	return resp, data, err
}

func everything(resp *http.Response, body []byte) string {
	return fmt.Sprint(resp.Status, resp.Header, resp.Trailer, string(body))
}

// restWire is REST by one binding of google.api.http: the first, or an additional one.
type restWire struct {
	httpWire
	binding int
}

func (w restWire) String() string {
	if w.binding == 0 {
		return "REST"
	}
	return fmt.Sprintf("REST, binding %d", w.binding)
}

func (w restWire) rule(m method) *annotations.HttpRule {
	rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	if rule == nil || w.binding == 0 {
		return rule
	}
	if more := rule.GetAdditionalBindings(); w.binding <= len(more) {
		return more[w.binding-1]
	}
	return nil
}

func (w restWire) serves(m method) bool { return w.rule(m) != nil }

// encode returns the JSON of the whole request; call takes the path, the query and the body out of it.
func (w restWire) encode(m proto.Message) ([]byte, error) {
	return protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
}

func (w restWire) call(ctx context.Context, m method, token string, body []byte) (reply, error) {
	verb, target, payload := w.place(m, body)
	contentType := ""
	if payload != nil {
		contentType = "application/json"
	}
	resp, data, err := w.send(ctx, verb, target, contentType, token, payload, io.ReadAll)
	if err != nil {
		return reply{}, err
	}
	r := reply{all: everything(resp, data)}
	if resp.StatusCode == http.StatusOK {
		r.json = data
	} else {
		r.status = &spb.Status{}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, r.status); err != nil {
			return r, fmt.Errorf("%s %s: %s is no google.rpc.Status: %w", verb, target, everything(resp, data), err)
		}
	}
	return r, nil
}

// place puts a request in JSON where the binding wants it. What is no JSON object goes into the body as it is, or
// into the query where there is no body.
func (w restWire) place(m method, request []byte) (verb, target string, body []byte) {
	rule := w.rule(m)
	verb, template := "", ""
	switch p := rule.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		verb, template = http.MethodGet, p.Get
	case *annotations.HttpRule_Put:
		verb, template = http.MethodPut, p.Put
	case *annotations.HttpRule_Post:
		verb, template = http.MethodPost, p.Post
	case *annotations.HttpRule_Delete:
		verb, template = http.MethodDelete, p.Delete
	case *annotations.HttpRule_Patch:
		verb, template = http.MethodPatch, p.Patch
	case *annotations.HttpRule_Custom:
		verb, template = p.Custom.GetKind(), p.Custom.GetPath()
	}
	fields := map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(request))
	decoder.UseNumber()
	malformed := decoder.Decode(&fields) != nil
	target = variable.ReplaceAllStringFunc(template, func(v string) string {
		value := fmt.Sprint(cut(fields, strings.Split(variable.FindStringSubmatch(v)[1], ".")))
		if malformed {
			value = filler{}.uuid()
		}
		return strings.ReplaceAll(url.PathEscape(value), "%2F", "/")
	})
	switch {
	case malformed && rule.GetBody() != "":
		return verb, target, request
	case malformed:
		return verb, target + "?" + url.QueryEscape(string(request)), nil
	case rule.GetBody() == "*":
		body, _ = json.Marshal(fields) // it came from JSON
		return verb, target, body
	case rule.GetBody() != "":
		body, _ = json.Marshal(cut(fields, []string{rule.GetBody()}))
	}
	if query := queryOf("", fields); len(query) > 0 {
		target += "?" + query.Encode()
	}
	return verb, target, body
}

// cut takes the value at a path out of a tree of JSON.
func cut(fields map[string]any, path []string) any {
	if len(path) > 1 {
		below, _ := fields[path[0]].(map[string]any)
		return cut(below, path[1:])
	}
	v := fields[path[0]]
	delete(fields, path[0])
	return v
}

func queryOf(prefix string, fields map[string]any) url.Values {
	values := url.Values{}
	for name, v := range fields {
		switch v := v.(type) {
		case map[string]any:
			for k, list := range queryOf(prefix+name+".", v) {
				values[k] = append(values[k], list...)
			}
		case []any:
			for _, item := range v {
				values.Add(prefix+name, fmt.Sprint(item))
			}
		default:
			values.Add(prefix+name, fmt.Sprint(v))
		}
	}
	return values
}

// connectWire is Connect: a plain request where there is one message each way, frames for streams.
type connectWire struct {
	httpWire
	codec string // json or proto
}

func (w connectWire) String() string     { return "Connect with " + w.codec }
func (w connectWire) serves(method) bool { return true }

func (w connectWire) encode(m proto.Message) ([]byte, error) {
	if w.codec == "json" {
		return protojson.Marshal(m)
	}
	return proto.Marshal(m)
}

// ending is the error of Connect: the body of a refused call, and part of the last frame of a stream.
type ending struct {
	Code    string
	Message string
	Details []struct{ Type, Value string }
}

func (e ending) status() (*spb.Status, error) {
	var code codes.Code
	name := strings.Replace(e.Code, "canceled", "cancelled", 1) // otherwise the names are the same
	if err := code.UnmarshalJSON([]byte(`"` + strings.ToUpper(name) + `"`)); err != nil {
		return nil, err
	}
	st := &spb.Status{Code: int32(code), Message: e.Message}
	for _, d := range e.Details {
		value, err := base64.RawStdEncoding.DecodeString(d.Value)
		if err != nil {
			return nil, err
		}
		st.Details = append(st.Details, &anypb.Any{TypeUrl: "type.googleapis.com/" + d.Type, Value: value})
	}
	return st, nil
}

func (w connectWire) call(ctx context.Context, m method, token string, body []byte) (reply, error) {
	contentType, take := "application/"+w.codec, io.ReadAll
	if m.streams() {
		contentType, take, body = "application/connect+"+w.codec, firstFrame, frame(body)
	}
	resp, data, err := w.send(ctx, http.MethodPost, m.path(), contentType, token, body, take)
	if err != nil {
		return reply{}, err
	}
	r := reply{all: everything(resp, data)}
	const last = 2 // the flag of the last frame
	var e ending
	switch {
	case resp.StatusCode != http.StatusOK:
		if json.Unmarshal(data, &e) != nil || e.Code == "" { // HTTP itself is at fault
			return r, fmt.Errorf("%s is no error of Connect", r.all)
		}
	case !m.streams():
		if w.codec == "proto" {
			r.message = data
		} else {
			r.json = data
		}
		return r, nil
	case len(data) > 0 && data[0]&last != 0:
		var end struct{ Error *ending }
		if err := json.Unmarshal(data[frameHeader:], &end); err != nil || end.Error == nil {
			return r, err // it ended well
		}
		e = *end.Error
	default:
		return r, nil
	}
	r.status, err = e.status()
	return r, err
}

const frameHeader = 5 // a byte of flags, four of length

func frame(body []byte) []byte {
	return append(bin.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
}

// firstFrame reads a frame with its header; nothing where there is none.
func firstFrame(r io.Reader) ([]byte, error) {
	header := make([]byte, frameHeader)
	if _, err := io.ReadFull(r, header); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		return nil, err
	}
	data := append(header, make([]byte, bin.BigEndian.Uint32(header[1:]))...)
	_, err := io.ReadFull(r, data[frameHeader:])
	return data, err
}

// webWire is gRPC-Web.
type webWire struct {
	httpWire
	codec string
}

func (w webWire) String() string     { return "gRPC-Web with " + w.codec }
func (w webWire) serves(method) bool { return true }

func (w webWire) encode(m proto.Message) ([]byte, error) {
	return connectWire{codec: w.codec}.encode(m)
}

func (w webWire) call(ctx context.Context, m method, token string, body []byte) (reply, error) {
	resp, data, err := w.send(ctx, http.MethodPost, m.path(), "application/grpc-web+"+w.codec, token, frame(body), firstFrame)
	if err != nil {
		return reply{}, err
	}
	r := reply{all: everything(resp, data)}
	trailer := resp.Header // an answer without a message has its trailers there
	const trailers = 0x80  // the flag of the frame that they are in
	switch {
	case resp.StatusCode != http.StatusOK:
		return r, fmt.Errorf("%s is no answer of gRPC-Web", r.all)
	case len(data) > 0 && data[0]&trailers != 0:
		if trailer, err = parseTrailers(data[frameHeader:]); err != nil {
			return r, err
		}
	case len(data) > 0:
		if w.codec == "proto" {
			r.message = data[frameHeader:]
		} else {
			r.json = data[frameHeader:]
		}
		return r, nil
	}
	switch trailer.Get("Grpc-Status") {
	case "0":
		return r, nil
	case "":
		return r, fmt.Errorf("%s has no grpc-status", r.all)
	}
	details, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(trailer.Get("Grpc-Status-Details-Bin"), "="))
	if err != nil || len(details) == 0 {
		return r, fmt.Errorf("%s has no google.rpc.Status: %v", r.all, err)
	}
	r.status = &spb.Status{}
	return r, proto.Unmarshal(details, r.status)
}

func parseTrailers(data []byte) (http.Header, error) {
	h := http.Header{}
	for line := range strings.SplitSeq(strings.TrimSpace(string(data)), "\r\n") {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("%q is no trailer", line)
		}
		h.Add(name, strings.TrimSpace(value))
	}
	return h, nil
}
