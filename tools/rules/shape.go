package rules

import (
	"path"
	"regexp"
	"strings"
	"unicode"

	"google.golang.org/protobuf/reflect/protoreflect"
)

const timestamp protoreflect.FullName = "google.protobuf.Timestamp"

func fieldTimeName(c *Contract, report Report) {
	c.messages(func(md protoreflect.MessageDescriptor) {
		for i := range md.Fields().Len() {
			fd := md.Fields().Get(i)
			if fd.Message() == nil || fd.Message().FullName() != timestamp {
				continue
			}
			switch name := string(fd.Name()); {
			case strings.HasSuffix(name, "_at"):
			case name == "timestamp": // of an event
			case name == "at" || name == "since" || name == "until": // of a question
			default:
				report(fd, "is a time: give it a name that ends in _at, such as created_at")
			}
		}
	})
}

// singular reports whether a message has a field of that name and kind that is no list.
func singular(md protoreflect.MessageDescriptor, name protoreflect.Name, kind protoreflect.Kind) bool {
	fd := md.Fields().ByName(name)
	return fd != nil && fd.Kind() == kind && !fd.IsList()
}

var (
	isList  = regexp.MustCompile(`^List\p{Lu}`)
	isWatch = regexp.MustCompile(`^Watch\p{Lu}`)
)

func listPaged(c *Contract, report Report) {
	for _, m := range c.methods {
		if !isList.MatchString(string(m.Name())) {
			continue
		}
		if m.IsStreamingClient() || m.IsStreamingServer() {
			report(m, "is a List that streams: call it Stream, or page it")
			continue
		}
		request, response := m.Input(), m.Output()
		switch {
		case !singular(request, "page_size", protoreflect.Int32Kind):
			report(m, "lists without pages: give %s an int32 page_size", request.Name())
		case !c.isImported(request) && !c.sizeBounded(request.Fields().ByName("page_size")):
			report(request.Fields().ByName("page_size"), "lets a caller ask for any number: add int32.gte = 0 and int32.lte")
		}
		if !singular(request, "page_token", protoreflect.StringKind) {
			report(m, "lists without pages: give %s a string page_token", request.Name())
		}
		if !singular(response, "next_page_token", protoreflect.StringKind) {
			report(m, "lists without pages: give %s a string next_page_token", response.Name())
		}
		if len(fieldsOf(response, func(fd protoreflect.FieldDescriptor) bool { return fd.IsList() })) == 0 {
			report(m, "lists nothing: give %s a repeated field", response.Name())
		}
	}
}

// sizeBounded reports whether a number has a least and a largest value.
func (c *Contract) sizeBounded(fd protoreflect.FieldDescriptor) bool {
	_, rules := c.fieldOptions(fd)
	n := rules.message("int32")
	return rules.word("ignore") != "IGNORE_ALWAYS" && (n.has("const", "in") || n.has("gte", "gt") && n.has("lte", "lt"))
}

// fieldsOf returns the fields of a message for which keep is true.
func fieldsOf(md protoreflect.MessageDescriptor, keep func(protoreflect.FieldDescriptor) bool) []protoreflect.FieldDescriptor {
	var kept []protoreflect.FieldDescriptor
	for i := range md.Fields().Len() {
		if fd := md.Fields().Get(i); keep(fd) {
			kept = append(kept, fd)
		}
	}
	return kept
}

// watches returns the methods that follow events, and the fields of their responses that carry one.
func (c *Contract) watches(f func(m method, events []protoreflect.FieldDescriptor)) {
	for _, m := range c.methods {
		if isWatch.MatchString(string(m.Name())) {
			f(m, fieldsOf(m.Output(), func(fd protoreflect.FieldDescriptor) bool {
				return fd.Kind() == protoreflect.MessageKind && !fd.IsList() && !fd.IsMap()
			}))
		}
	}
}

func watchResumable(c *Contract, report Report) {
	c.watches(func(m method, events []protoreflect.FieldDescriptor) {
		if m.IsStreamingClient() || !m.IsStreamingServer() {
			report(m, "is a Watch and no stream of the server: answer with a stream")
		}
		for _, md := range []protoreflect.MessageDescriptor{m.Input(), m.Output()} {
			if !singular(md, "resume_token", protoreflect.StringKind) {
				report(m, "cannot be resumed after a broken stream: give %s a string resume_token", md.Name())
			}
		}
		if len(events) == 0 {
			report(m, "carries no event: give %s a message field for it", m.Output().Name())
		}
		for _, fd := range events {
			// In a contract of this kind presence is said, so that a reader knows that there are responses without an event.
			if fd.ContainingOneof() == nil && !fd.HasOptionalKeyword() && fd.ParentFile().Syntax() == protoreflect.Proto3 && !c.isImported(fd) {
				report(fd, "is unset in responses that only move the resume point: make it optional, or part of a oneof")
			}
		}
	})
}

func watchEventShape(c *Contract, report Report) {
	c.watches(func(_ method, events []protoreflect.FieldDescriptor) {
		for _, fd := range events {
			event := fd.Message()
			if c.isImported(event) {
				continue
			}
			isType := func(fd protoreflect.FieldDescriptor) bool {
				name := string(fd.Name())
				return fd.Kind() == protoreflect.EnumKind && !fd.IsList() && (name == "type" || strings.HasSuffix(name, "_type"))
			}
			if len(fieldsOf(event, isType)) == 0 {
				report(event, "is an event and does not say of which type: give it an enum type, or one that ends in _type")
			}
			if when := event.Fields().ByName("timestamp"); when == nil || when.Message() == nil || when.Message().FullName() != timestamp || when.IsList() {
				report(event, "is an event and does not say when it was written: give it a google.protobuf.Timestamp timestamp")
			}
		}
	})
}

func serviceOwnFile(c *Contract, report Report) {
	for _, s := range c.services() {
		file := s.ParentFile()
		if want := snake(string(s.Name())) + ".proto"; s.Index() > 0 {
			report(s, "shares its file with %s: give it a file of its own", file.Services().Get(0).Name())
		} else if path.Base(file.Path()) != want {
			report(s, "stands in %s: call the file %s", path.Base(file.Path()), want)
		}
	}
}

// snake turns UserService into user_service, and HTTPService into http_service.
func snake(name string) string {
	runes := []rune(name)
	var b strings.Builder
	for i, r := range runes {
		if i > 0 && unicode.IsUpper(r) && (!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// packageIsolated allows the package of the policies, and what other modules provide.
func packageIsolated(c *Contract, report Report) {
	checked := map[string]protoreflect.FullName{} // package by path
	for _, file := range c.files {
		checked[file.Path()] = file.Package()
	}
	for _, file := range c.files {
		for i := range file.Imports().Len() {
			imported := file.Imports().Get(i)
			pkg, ok := checked[imported.Path()]
			if !ok || pkg == file.Package() || pkg == policyOption.Parent() {
				continue
			}
			report(importOf{file, i}, "imports %s of package %s: packages meet through their services alone, so copy what is needed", imported.Path(), pkg)
		}
	}
}
