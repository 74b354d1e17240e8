package server

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync"
	"testing"
	"unsafe"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type lastOptions struct{ Last bool }

// These are streams that a later transport might have.
type (
	stream struct {
		header []byte
		data   mem.BufferSlice
		err    error
	}
	noStream     struct{}
	byValue      struct{}
	noOptions    struct{}
	moreOptions  struct{}
	valueOptions struct{}
	textHeader   struct{}
	oneBuffer    struct{}
	counting     struct{}
	sayingNo     struct{}
	silent       struct{}
)

var errFull = errors.New("full")

func (s *stream) Write(header []byte, data mem.BufferSlice, o *lastOptions) error {
	if o == nil || *o != (lastOptions{}) {
		return fmt.Errorf("the options are %v", o)
	}
	s.header, s.data = header, data
	return s.err
}
func (byValue) Write([]byte, mem.BufferSlice, *lastOptions) error                       { return nil }
func (*noOptions) Write([]byte, mem.BufferSlice) error                                  { return nil }
func (*moreOptions) Write([]byte, mem.BufferSlice, *lastOptions, ...*lastOptions) error { return nil }
func (*valueOptions) Write([]byte, mem.BufferSlice, lastOptions) error                  { return nil }
func (*textHeader) Write(string, mem.BufferSlice, *lastOptions) error                   { return nil }
func (*oneBuffer) Write([]byte, []byte, *lastOptions) error                             { return nil }
func (*counting) Write([]byte, mem.BufferSlice, *lastOptions) (int, error)              { return 0, nil }
func (*sayingNo) Write([]byte, mem.BufferSlice, *lastOptions) bool                      { return false }
func (*silent) Write([]byte, mem.BufferSlice, *lastOptions)                             {}

func TestAStreamIsWrittenToOnlyAsItsTransportHasIt(t *testing.T) {
	to := &stream{err: errFull}
	write, options, err := writeOf(reflect.TypeOf(to))
	if err != nil {
		t.Fatal(err)
	}
	if err := write(unsafe.Pointer(to), []byte("header"), mem.BufferSlice{mem.SliceBuffer("data")}, options); err != errFull {
		t.Errorf("got %v, want %v", err, errFull)
	}
	if string(to.header) != "header" || string(to.data.Materialize()) != "data" {
		t.Errorf("%q and %q were written", to.header, to.data.Materialize())
	}
	for _, other := range []any{
		&noStream{}, byValue{}, &byValue{}, &noOptions{}, &moreOptions{}, &valueOptions{}, &textHeader{}, &oneBuffer{},
		&counting{}, &sayingNo{}, &silent{},
	} {
		_, _, err := writeOf(reflect.TypeOf(other))
		if _, ok := other.(*byValue); ok != (err == nil) { // a method of a value is one of its pointer too
			t.Errorf("%T: %v", other, err)
		}
	}
}

// writer returns a stream, and where it is written to.
func writer(t *testing.T, by encoding.Compressor) (*stream, *outgoing) {
	t.Helper()
	to := &stream{}
	write, options, err := writeOf(reflect.TypeOf(to))
	if err != nil {
		t.Fatal(err)
	}
	return to, &outgoing{stream: unsafe.Pointer(to), options: options, write: write, by: by}
}

// counted is a compressor that counts what it is asked for, and takes all of it as it is.
type counted struct{ times int }

func (c *counted) Compress(w io.Writer) (io.WriteCloser, error) {
	c.times++
	return struct {
		io.Writer
		io.Closer
	}{w, io.NopCloser(nil)}, nil
}
func (*counted) Decompress(r io.Reader) (io.Reader, error) { return r, nil }
func (*counted) Name() string                              { return "counted" }

func TestAMessageThatManyGetAllocatesNothingForEach(t *testing.T) {
	m, err := encode(wrapperspb.String("text"))
	if err != nil {
		t.Fatal(err)
	}
	compressor := &counted{}
	for _, row := range []struct {
		by   encoding.Compressor
		want string
	}{{nil, "\x00\x00\x00\x00\x06\x0a\x04text"}, {compressor, "\x01\x00\x00\x00\x06\x0a\x04text"}} {
		to, o := writer(t, row.by)
		if n := testing.AllocsPerRun(100, func() { _ = o.share(m) }); n != 0 {
			t.Errorf("%v objects are allocated for each", n)
		}
		if got := to.data.Materialize(); string(got) != row.want || len(to.header) != 0 {
			t.Errorf("%q and %q were written, want %q", to.header, got, row.want)
		}
	}
	if compressor.times != 1 {
		t.Errorf("it was compressed %d times", compressor.times)
	}
}

func TestManyWhoGetAMessageAtOnceHaveItCompressedOnce(t *testing.T) {
	m, err := encode(wrapperspb.String("text"))
	if err != nil {
		t.Fatal(err)
	}
	compressor := &counted{}
	var all sync.WaitGroup
	for range 20 {
		_, o := writer(t, compressor)
		all.Go(func() { _ = o.share(m) })
	}
	all.Wait()
	if compressor.times != 1 {
		t.Errorf("it was compressed %d times", compressor.times)
	}
}

func TestAMessageWithoutAByteIsNotCompressed(t *testing.T) {
	m, err := encode(wrapperspb.String(""))
	if err != nil {
		t.Fatal(err)
	}
	to, o := writer(t, &counted{})
	if err := o.share(m); err != nil {
		t.Fatal(err)
	}
	if got, want := to.data.Materialize(), "\x00\x00\x00\x00\x00"; string(got) != want {
		t.Errorf("%q was written, want %q", got, want)
	}
}

func TestAConnectionThatIsGoneIsUnavailable(t *testing.T) {
	to, o := writer(t, nil)
	for _, row := range []struct {
		err  error
		want codes.Code
	}{{io.ErrClosedPipe, codes.Unavailable}, {status.Error(codes.Canceled, "left"), codes.Canceled}, {nil, codes.OK}} {
		to.err = row.err
		if err := o.put(nil); status.Code(err) != row.want {
			t.Errorf("%v is %v, want %s", row.err, err, row.want)
		}
	}
}
