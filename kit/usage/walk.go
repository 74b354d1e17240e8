package usage

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	// maxDepth is how many messages deep one is looked at, itself included: some hold messages of their own kind.
	maxDepth = 8
	// maxSteps bounds the work for one message, in messages, fields and fields of unknown numbers: about half a millisecond.
	maxSteps = 10_000
	// foreign begins the names of messages that are not looked into: they are part of protobuf, and not of a contract.
	foreign = "google.protobuf."
)

// node is a place where a message stands: the message itself, or a field of one.
type node struct {
	path   string // of the field, with a dot behind it; "" of the message itself
	depth  int    // of the messages above it
	fields map[protoreflect.FieldNumber]*field
}

// field is a field of a message at its place. Those whose number nobody knows stand among their sisters with the number
// below zero.
type field struct {
	message protoreflect.FullName
	name    string
	path    string
	count   uint64
	last    int64  // in ns since 1970
	seen    uint64 // which message had it last: a list has its fields many times, and one message counts once
	below   *node  // nil where there is nothing below that is looked at
	cut     bool   // there is something below, and it is too deep
}

// look counts the fields of a message.
func (s *side) look(r *Recorder, m protoreflect.Message, now int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sampled++
	s.last = max(s.last, now) // another goroutine may have read its clock later and be here before
	w := walk{recorder: r, now: s.last, message: s.sampled, steps: maxSteps}
	w.visit(&s.root, m)
	if w.truncated {
		r.truncated.Add(1)
	}
}

// walk is the way through one message.
type walk struct {
	recorder  *Recorder
	now       int64
	message   uint64 // its number, from 1
	steps     int    // how many are left
	truncated bool   // not all of it was looked at
}

func (w *walk) step() bool {
	if w.steps == 0 {
		w.truncated = true
		return false
	}
	w.steps--
	return true
}

// visit counts the fields of m, which stands at n. It returns false once there was enough of it.
func (w *walk) visit(n *node, m protoreflect.Message) bool {
	more := w.step()
	if !more {
		return false
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if more = w.step(); !more {
			return false
		}
		f := n.fields[fd.Number()]
		if f == nil {
			if f = w.add(n, fd); f == nil {
				return true
			}
		}
		w.count(f)
		more = w.descend(f, fd, v)
		return more
	})
	return more && w.unknown(n, m)
}

// count counts the field, once a message.
func (w *walk) count(f *field) {
	if f.seen != w.message {
		f.seen, f.last = w.message, w.now
		f.count++
	}
}

// descend goes into the messages that the field holds.
func (w *walk) descend(f *field, fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
	if f.cut {
		w.truncated = true
	}
	if f.below == nil {
		return true
	}
	more := true
	switch {
	case fd.IsMap():
		v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
			more = w.visit(f.below, v.Message())
			return more
		})
	case fd.IsList():
		list := v.List()
		for i := 0; more && i < list.Len(); i++ {
			more = w.visit(f.below, list.Get(i).Message())
		}
	default:
		more = w.visit(f.below, v.Message())
	}
	return more
}

// unknown counts the fields of m whose numbers nobody knows here. Those of a newer contract are among them.
func (w *walk) unknown(n *node, m protoreflect.Message) bool {
	for raw := m.GetUnknown(); len(raw) > 0; {
		if !w.step() {
			return false
		}
		number, _, size := protowire.ConsumeField(raw)
		if size < 0 {
			return true // whoever set it by hand did it wrong
		}
		raw = raw[size:]
		f := n.fields[-number]
		if f == nil {
			if !w.recorder.room(true) {
				continue
			}
			f = n.place(-number, m.Descriptor().FullName(), "unknown:"+strconv.Itoa(int(number)))
		}
		w.count(f)
	}
	return true
}

// add makes room for a field that was not there before; nil where there is none.
func (w *walk) add(n *node, fd protoreflect.FieldDescriptor) *field {
	if !w.recorder.room(false) {
		return nil
	}
	name := string(fd.Name())
	if fd.IsExtension() {
		name = "[" + string(fd.FullName()) + "]"
	}
	f := n.place(fd.Number(), fd.ContainingMessage().FullName(), name)
	holds := fd.Message()
	if fd.IsMap() {
		holds = fd.MapValue().Message()
	}
	if holds == nil || strings.HasPrefix(string(holds.FullName()), foreign) {
		return f
	}
	if f.cut = n.depth+1 == maxDepth; !f.cut {
		f.below = &node{path: f.path + ".", depth: n.depth + 1}
	}
	return f
}

func (n *node) place(number protoreflect.FieldNumber, message protoreflect.FullName, name string) *field {
	f := &field{message: message, name: name, path: n.path + name}
	if n.fields == nil {
		n.fields = make(map[protoreflect.FieldNumber]*field)
	}
	n.fields[number] = f
	return f
}
