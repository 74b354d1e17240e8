// Package upstream stands for a service of a later version behind the edge: it takes messages and gives answers with
// fields that no version has, and tells which of them did not arrive as they were sent.
package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // what the codec stands on
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Kind is a kind of call.
type Kind int

// The kinds of call.
const (
	Unary Kind = iota
	ServerStream
	ClientStream
	BothWays
)

// Passage is a message that goes through the edge, and one that comes back.
type Passage struct {
	// Method is the path of the method: "/package.Service/Method".
	Method  string
	Kind    Kind
	Request proto.Message
	Answer  proto.Message
}

// Result is what came through over one wire.
type Result struct {
	Wire   string
	Passed int
	// Lost says of each message that did not arrive as it was sent what was sent and what arrived.
	Lost []string
}

// Upstream answers every method that it has a passage of. It is safe for concurrent use.
type Upstream struct {
	passages []Passage

	mu  sync.Mutex
	got map[string][]byte // the last request, by method
}

// New returns an Upstream for some passages.
func New(passages []Passage) *Upstream {
	return &Upstream{passages: passages, got: make(map[string][]byte)}
}

// Serve serves on a port of this machine until stop is called.
func (u *Upstream) Serve(config *tls.Config) (address string, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)), grpc.ForceServerCodecV2(rawCodec{encoding.GetCodecV2("proto")}),
		grpc.UnknownServiceHandler(u.handle))
	well := health.NewServer()
	for _, p := range u.passages {
		service, _, _ := strings.Cut(strings.TrimPrefix(p.Method, "/"), "/")
		well.SetServingStatus(service, healthpb.HealthCheckResponse_SERVING)
	}
	healthpb.RegisterHealthServer(s, well)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	return l.Addr().String(), func() error { s.Stop(); return <-ended }, nil
}

// handle takes what comes and gives the answer: to a stream that goes both ways after the first message, else when all
// is there.
func (u *Upstream) handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	p, ok := u.passage(method)
	if !ok {
		return status.Error(codes.Unimplemented, "this is no method of a test")
	}
	answer, err := proto.Marshal(p.Answer)
	if err != nil {
		return err
	}
	for answered := false; ; answered = true {
		var data []byte
		err := stream.RecvMsg(&data)
		if errors.Is(err, io.EOF) {
			if answered && p.Kind != ClientStream {
				return nil
			}
			return stream.SendMsg(&answer)
		}
		if err != nil {
			return err
		}
		u.mu.Lock()
		u.got[method] = data
		u.mu.Unlock()
		if p.Kind != ClientStream {
			if err := stream.SendMsg(&answer); err != nil {
				return err
			}
		}
	}
}

func (u *Upstream) passage(method string) (Passage, bool) {
	for _, p := range u.passages {
		if p.Method == method {
			return p, true
		}
	}
	return Passage{}, false
}

// take returns the last request of a method, and forgets it.
func (u *Upstream) take(method string) []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	data := u.got[method]
	delete(u.got, method)
	return data
}

// Through sends every passage through the edge that listens there, over each wire that carries it in the encoding of
// protobuf.
func (u *Upstream) Through(ctx context.Context, rpc, web string) ([]Result, error) {
	native, err := dial(rpc)
	if err != nil {
		return nil, err
	}
	defer native.Close()
	var results []Result
	for _, w := range []wire{native, connect(web), grpcWeb(web)} {
		r := Result{Wire: w.String()}
		for _, p := range u.passages {
			if !w.carries(p.Kind) {
				continue
			}
			request, err := proto.Marshal(p.Request)
			if err != nil {
				return nil, err
			}
			answer, err := w.call(ctx, p, request)
			if err != nil {
				r.Lost = append(r.Lost, fmt.Sprintf("%s: %v", p.Method, err))
				continue
			}
			r.hold(p.Method+", the request", u.take(p.Method), p.Request)
			r.hold(p.Method+", the answer", answer, p.Answer)
		}
		results = append(results, r)
	}
	return append(results, u.overJSON(ctx, web)), nil
}

// overJSON sends the unary passages in JSON, over Connect. JSON has no room for what the edge does not know: a request
// with it must be refused, and of an answer the rest must arrive.
func (u *Upstream) overJSON(ctx context.Context, web string) Result {
	w := overHTTP{name: "JSON, without those fields", base: "http://" + web, unary: "application/json"}
	r := Result{Wire: w.name}
	for _, p := range u.passages {
		if p.Kind != Unary {
			continue
		}
		request, want := without(p.Request), without(p.Answer)
		text, err := protojson.Marshal(request)
		var answer []byte
		if err == nil {
			answer, err = w.call(ctx, p, text)
		}
		got := want.ProtoReflect().New().Interface()
		if err == nil {
			err = protojson.Unmarshal(answer, got)
		}
		if err != nil {
			r.Lost = append(r.Lost, fmt.Sprintf("%s: %v", p.Method, err))
			continue
		}
		r.hold(p.Method+", the request", u.take(p.Method), request)
		if !proto.Equal(got, want) {
			r.Lost = append(r.Lost, fmt.Sprintf("%s, the answer arrives as %s", p.Method, answer))
		} else {
			r.Passed++
		}
		_, err = w.call(ctx, p, []byte(`{"later": "x"}`))
		if arrived := u.take(p.Method); err == nil || arrived != nil {
			r.Lost = append(r.Lost, fmt.Sprintf("%s: a request with a field that is not known is let pass: %x", p.Method, arrived))
		} else {
			r.Passed++
		}
	}
	return r
}

// without returns a message without any unknown field.
func without(m proto.Message) proto.Message {
	c := proto.Clone(m)
	strip(c.ProtoReflect())
	return c
}

func strip(m protoreflect.Message) {
	m.SetUnknown(nil)
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Message() != nil && !fd.IsMap() && !fd.IsList() {
			strip(v.Message())
		}
		return true
	})
}

// hold holds what arrived against what was sent, unknown fields included.
func (r *Result) hold(what string, data []byte, sent proto.Message) {
	got := sent.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(data, got); err != nil {
		r.Lost = append(r.Lost, fmt.Sprintf("%s: %v", what, err))
		return
	}
	if !proto.Equal(got, sent) {
		r.Lost = append(r.Lost, fmt.Sprintf("%s arrives as %x", what, data))
		return
	}
	r.Passed++
}

// rawCodec passes bytes through, and leaves messages, which health has, to grpc's own codec.
type rawCodec struct{ encoding.CodecV2 }

func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if data, ok := v.(*[]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(*data)}, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if to, ok := v.(*[]byte); ok {
		*to = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}
