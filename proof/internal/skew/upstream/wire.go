package upstream

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
)

// wire is a way through the edge.
type wire interface {
	fmt.Stringer
	carries(k Kind) bool
	// call makes a call with one request and returns the first answer.
	call(ctx context.Context, p Passage, request []byte) ([]byte, error)
}

// native is gRPC.
type native struct{ *grpc.ClientConn }

func dial(address string) (native, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	return native{conn}, err
}

func (native) String() string    { return "gRPC" }
func (native) carries(Kind) bool { return true }

func (n native) call(ctx context.Context, p Passage, request []byte) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := n.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, p.Method, grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2("proto")}))
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(&request); err != nil && !errors.Is(err, io.EOF) { // io.EOF: the status comes by receiving
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	var answer []byte
	err = stream.RecvMsg(&answer)
	return answer, err
}

// overHTTP is a wire on the HTTP side of the edge.
type overHTTP struct {
	name, base    string
	unary, stream string // the types of content
	framed        bool   // whether a unary call is in frames as well
}

// connect is the protocol of Connect, over HTTP/1.1.
func connect(address string) overHTTP {
	return overHTTP{"Connect", "http://" + address, "application/proto", "application/connect+proto", false}
}

// grpcWeb is gRPC-Web, over HTTP/1.1.
func grpcWeb(address string) overHTTP {
	return overHTTP{"gRPC-Web", "http://" + address, "application/grpc-web+proto", "application/grpc-web+proto", true}
}

func (w overHTTP) String() string      { return w.name }
func (w overHTTP) carries(k Kind) bool { return k == Unary || k == ServerStream }

// frameHeader is a byte of flags and four of length.
const frameHeader = 5

func (w overHTTP) call(ctx context.Context, p Passage, request []byte) ([]byte, error) {
	content, framed := w.stream, true
	if p.Kind == Unary {
		content, framed = w.unary, w.framed
	}
	if framed {
		request = append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(request))), request...)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.base+p.Method, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", content)
	req.Header.Set("Connect-Protocol-Version", "1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: %s", resp.Status, body)
	case !framed:
		return body, nil
	case len(body) < frameHeader || body[0] != 0 || len(body)-frameHeader < int(binary.BigEndian.Uint32(body[1:])):
		return nil, fmt.Errorf("no answer: %q %v", body, resp.Header)
	}
	return body[frameHeader : frameHeader+int(binary.BigEndian.Uint32(body[1:]))], nil
}
