package server

import (
	"errors"
	"reflect"
	"testing"
	"unsafe"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type lastOptions struct{}

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
	if o != nil {
		return errors.New("there are options")
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
	write, err := writeOf(reflect.TypeOf(to))
	if err != nil {
		t.Fatal(err)
	}
	if err := write(unsafe.Pointer(to), []byte("header"), mem.BufferSlice{mem.SliceBuffer("data")}, nil); err != errFull {
		t.Errorf("got %v, want %v", err, errFull)
	}
	if string(to.header) != "header" || string(to.data.Materialize()) != "data" {
		t.Errorf("%q and %q were written", to.header, to.data.Materialize())
	}
	for _, other := range []any{
		&noStream{}, byValue{}, &byValue{}, &noOptions{}, &moreOptions{}, &valueOptions{}, &textHeader{}, &oneBuffer{},
		&counting{}, &sayingNo{}, &silent{},
	} {
		_, err := writeOf(reflect.TypeOf(other))
		if _, ok := other.(*byValue); ok != (err == nil) { // a method of a value is one of its pointer too
			t.Errorf("%T: %v", other, err)
		}
	}
}

func TestAMessageThatManyGetAllocatesNothingForEach(t *testing.T) {
	to := &stream{}
	write, err := writeOf(reflect.TypeOf(to))
	if err != nil {
		t.Fatal(err)
	}
	m, err := encode(wrapperspb.String("text"))
	if err != nil {
		t.Fatal(err)
	}
	o := &outgoing{stream: unsafe.Pointer(to), write: write}
	if n := testing.AllocsPerRun(100, func() { _ = o.share(m) }); n != 0 {
		t.Errorf("%v objects are allocated for each", n)
	}
	if got, want := to.data.Materialize(), "\x00\x00\x00\x00\x06\x0a\x04text"; string(got) != want || len(to.header) != 0 {
		t.Errorf("%q and %q were written, want %q", to.header, got, want)
	}
}
