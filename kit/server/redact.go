package server

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

const (
	redacted = "[redacted]"
	// minSecret is the length below which a secret is not looked for, in bytes: it would be found everywhere.
	minSecret = 4
	// maxSecrets bounds the work for one failure. A request with more of them has nothing of its failure told.
	maxSecrets = 100
)

// cleaner returns a function that takes the secrets of the call out of a text: the access token, and the values
// of the fields of the request, or of the last message of a stream, that the contract marks debug_redact. Errors quote what
// they were given more often than their authors think.
func cleaner(c *call) func(string) string {
	return cleanerOf(func() []string {
		c.coming.Lock()
		defer c.coming.Unlock()
		return secretsOf(c, c.last)
	})
}

// came remembers the last message. A stream may be read by a goroutine that outlives the handler.
func (c *call) came(m proto.Message) {
	c.coming.Lock()
	defer c.coming.Unlock()
	c.last = m
}

// cleanerOf is cleaner for the secrets that find returns, which is called when there is a text.
func cleanerOf(find func() []string) func(string) string {
	var secrets []string
	known := false
	return func(text string) string {
		if text == "" {
			return ""
		}
		if !known {
			secrets, known = find(), true
		}
		if len(secrets) > maxSecrets {
			return redacted
		}
		for _, s := range secrets {
			text = strings.ReplaceAll(text, s, redacted)
		}
		return text
	}
}

// conceal takes the secrets of the call out of what a status says in words: its text, its metadata, and what it complains of in
// fields. Answers are kept, by proxies and by the logs of callers, who did not put the secret there. It changes st.
func conceal(clean func(string) string, st *spb.Status) *spb.Status {
	st.Message = clean(st.GetMessage())
	for _, d := range st.GetDetails() {
		var said proto.Message
		switch {
		case d.MessageIs(&errdetails.ErrorInfo{}):
			info := &errdetails.ErrorInfo{}
			if d.UnmarshalTo(info) != nil || len(info.GetMetadata()) == 0 {
				continue
			}
			for k, v := range info.GetMetadata() {
				info.Metadata[k] = clean(v)
			}
			said = info
		case d.MessageIs(&errdetails.BadRequest{}):
			bad := &errdetails.BadRequest{}
			if d.UnmarshalTo(bad) != nil {
				continue
			}
			for _, v := range bad.GetFieldViolations() {
				v.Field, v.Description = clean(v.GetField()), clean(v.GetDescription())
			}
			said = bad
		default:
			continue
		}
		if err := d.MarshalFrom(said); err != nil {
			d.Reset() // rather nothing than a secret
		}
	}
	return st
}

// secretsOf returns the secrets of a call and a message of it, the longest first: one may be part of another. It stops beyond maxSecrets.
func secretsOf(c *call, m proto.Message) []string {
	var list []string
	add := func(s string) {
		if len(s) < minSecret || len(list) > maxSecrets {
			return
		}
		list = append(list, s)
		if q := strconv.Quote(s); q[1:len(q)-1] != s {
			list = append(list, q[1:len(q)-1]) // as %q writes it
		}
	}
	for _, s := range c.header["authorization"] {
		_, token, _ := strings.Cut(s, " ")
		add(token)
	}
	if m != nil {
		collectSecrets(m.ProtoReflect(), false, add)
	}
	slices.SortFunc(list, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return list
}

// collectSecrets adds the secret values of a message: all of them where the message itself is one.
func collectSecrets(m protoreflect.Message, all bool, add func(string)) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		secret := all || isSecret(fd)
		switch {
		case fd.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				if secret {
					add(k.String())
				}
				collectValue(fd.MapValue(), v, secret, add)
				return true
			})
		case fd.IsList():
			for i := range v.List().Len() {
				collectValue(fd, v.List().Get(i), secret, add)
			}
		default:
			collectValue(fd, v, secret, add)
		}
		return true
	})
}

func collectValue(fd protoreflect.FieldDescriptor, v protoreflect.Value, secret bool, add func(string)) {
	switch {
	case fd.Message() != nil:
		collectSecrets(v.Message(), secret, add)
	case !secret, fd.Kind() == protoreflect.BoolKind, fd.Kind() == protoreflect.EnumKind:
	case fd.Kind() == protoreflect.BytesKind:
		add(string(v.Bytes()))
	default:
		add(v.String())
	}
}

func isSecret(fd protoreflect.FieldDescriptor) bool {
	opts, ok := fd.Options().(*descriptorpb.FieldOptions)
	return ok && opts.GetDebugRedact()
}
