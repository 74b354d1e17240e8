package upstream

import (
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
)

func passage() Passage {
	later := []byte{0xc2, 0xb2, 0x04, 0x01, 'x'}
	req, resp := &authv1.GetUserRequest{UserId: "u"}, &authv1.GetUserResponse{UserId: "u", Active: true}
	req.ProtoReflect().SetUnknown(later)
	resp.ProtoReflect().SetUnknown(later)
	return Passage{Method: "/auth.v1.AuthService/GetUser", Kind: Unary, Request: req, Answer: resp}
}

// edge serves HTTP as an edge does that decodes each message and encodes what change leaves of it.
func edge(t *testing.T, u *Upstream, p Passage, change func(proto.Message) proto.Message) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		framed := strings.Contains(r.Header.Get("Content-Type"), "grpc-web")
		if framed {
			body = body[frameHeader:]
		}
		req := p.Request.ProtoReflect().New().Interface()
		asJSON := r.Header.Get("Content-Type") == "application/json"
		if asJSON {
			err = protojson.Unmarshal(body, req)
		} else {
			err = proto.Unmarshal(body, req)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		data, _ := proto.Marshal(change(req))
		u.mu.Lock()
		u.got[r.URL.Path] = data
		u.mu.Unlock()
		if asJSON {
			data, _ = protojson.Marshal(change(p.Answer))
		} else {
			data, _ = proto.Marshal(change(p.Answer))
		}
		if framed {
			data = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(data))), data...)
		}
		_, _ = w.Write(data)
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func through(t *testing.T, u *Upstream, p Passage, w wire) Result {
	t.Helper()
	request, err := proto.Marshal(p.Request)
	if err != nil {
		t.Fatal(err)
	}
	var r Result
	answer, err := w.call(context.WithoutCancel(t.Context()), p, request)
	if err != nil {
		t.Fatal(err)
	}
	r.hold("the request", u.take(p.Method), p.Request)
	r.hold("the answer", answer, p.Answer)
	return r
}

func TestAnEdgeThatDropsUnknownFieldsIsFound(t *testing.T) {
	for name, row := range map[string]struct {
		change func(proto.Message) proto.Message
		passed int
	}{
		"one that keeps them":  {func(m proto.Message) proto.Message { return m }, 2},
		"one that drops them":  {without, 0},
		"one that drops a lot": {func(m proto.Message) proto.Message { return m.ProtoReflect().New().Interface() }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := passage()
			u := New([]Passage{p})
			at := edge(t, u, p, row.change)
			for _, w := range []wire{connect(at), grpcWeb(at)} {
				if r := through(t, u, p, w); r.Passed != row.passed || len(r.Lost) != 2-row.passed {
					t.Errorf("%s: %+v", w, r)
				}
			}
		})
	}
}

func TestJSONIsHeldWithoutThem(t *testing.T) {
	p := passage()
	u := New([]Passage{p})
	if r := u.overJSON(t.Context(), edge(t, u, p, func(m proto.Message) proto.Message { return m })); r.Passed != 3 || len(r.Lost) != 0 {
		t.Errorf("%+v", r)
	}
	empty := func(m proto.Message) proto.Message { return m.ProtoReflect().New().Interface() }
	if r := u.overJSON(t.Context(), edge(t, u, p, empty)); len(r.Lost) != 2 {
		t.Errorf("an edge that loses everything: %+v", r)
	}
}
