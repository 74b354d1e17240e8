package main_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	policyv1 "github.com/concordat-dev/concordat/gen/go/policy/v1"
	"github.com/concordat-dev/concordat/kit"
	"github.com/concordat-dev/concordat/kit/kittest"
)

// What every planted secret begins with: one for text, and one for numbers, which fit where text does not.
const (
	canary        = "zqcanaryzq"
	numericCanary = "770177027703"
)

// planted matches a secret in whatever form it may have leaked: as it is, in another case, in hexadecimal, or inside of
// something in base64, where it looks different at each of three offsets.
var planted = regexp.MustCompile("(?i:" + canary + "|" + numericCanary + "|" + hex.EncodeToString([]byte(canary)) + ")|" +
	base64.StdEncoding.EncodeToString([]byte(canary[:9])) + "|" +
	base64.StdEncoding.EncodeToString([]byte(canary[2:8])) + "|" +
	base64.StdEncoding.EncodeToString([]byte(canary[1:10])))

// secrets makes secrets, and remembers what was planted where.
type secrets struct{ places []string }

// next returns a secret of at least 12 characters for a place.
func (s *secrets) next(place string) string {
	s.places = append(s.places, place)
	return fmt.Sprintf("%s%05d", canary, len(s.places)-1)
}

// place returns where the first secret in a text was planted, as far as it can be told, with what is around it.
func (s *secrets) place(text string) string {
	at := planted.FindStringIndex(text)
	where := "somewhere"
	var n int
	if _, err := fmt.Sscanf(strings.ToLower(text[at[0]:min(at[0]+15, len(text))]), canary+"%05d", &n); err == nil && n < len(s.places) {
		where = s.places[n]
	}
	return fmt.Sprintf("planted in %s: …%q…", where, text[max(0, at[0]-200):min(len(text), at[1]+100)])
}

func TestAPlantedSecretIsFoundInEveryForm(t *testing.T) {
	t.Parallel()
	secret := new(secrets).next("here")
	for name, text := range map[string]string{
		"as it is": secret, "in capitals": strings.ToUpper(secret), "in hexadecimal": hex.EncodeToString([]byte(secret)),
		"in base64": base64.StdEncoding.EncodeToString([]byte(secret)), "in base64 behind one byte": base64.StdEncoding.EncodeToString([]byte("-" + secret)),
		"in base64 behind two bytes": base64.URLEncoding.EncodeToString([]byte("--" + secret)), "a number": "x" + numericCanary, "escaped": url.QueryEscape(secret), "quoted": fmt.Sprintf("%q", secret),
	} {
		if !planted.MatchString("behind " + text + " before") {
			t.Errorf("%s: %s", name, text)
		}
	}
	if planted.MatchString("zqcanary or base64 such as enFjYW5h") {
		t.Error("what is no secret is taken for one")
	}
}

// form is a way to write a request that holds a secret. It returns nil where it does not fit the request.
type form struct {
	name  string
	write func(encoded []byte, secret string) []byte
}

// forms are the ways to get a request wrong, or right.
func forms() []form {
	quoted := func(with string) func([]byte, string) []byte {
		return func(encoded []byte, secret string) []byte {
			return swap(encoded, `"`+secret+`"`, strings.ReplaceAll(with, "SECRET", secret))
		}
	}
	return []form{
		{"as it should be", func(encoded []byte, _ string) []byte { return encoded }},
		{"an object where text should be", quoted(`{"x": "SECRET"}`)},
		{"a list where text should be", quoted(`["SECRET"]`)},
		{"a number where text should be", quoted(numericCanary)},
		{"text that is not ended", quoted(`"SECRET`)},
		{"a wrong escape", quoted(`"SECRET\q"`)},
		{"twice", quoted(`"SECRET", "x": "SECRET"`)},
		{"cut off", func(encoded []byte, secret string) []byte {
			if i := bytes.Index(encoded, []byte(secret)); i >= 0 {
				return encoded[:i+len(secret)-1]
			}
			return nil
		}},
		{"not UTF-8", func(encoded []byte, secret string) []byte {
			return swap(encoded, secret, secret[:len(secret)-1]+"\xff")
		}},
		{"a field that does not exist", func(encoded []byte, secret string) []byte {
			if bytes.HasPrefix(encoded, []byte("{")) {
				return append([]byte(`{"nonesuch": "`+secret+`", `), encoded[1:]...)
			}
			return protowire.AppendString(protowire.AppendTag(slices.Clone(encoded), 9999, protowire.BytesType), secret)
		}},
		{"with rubbish behind it", func(encoded []byte, secret string) []byte {
			return append(slices.Clone(encoded), secret...)
		}},
	}
}

func swap(encoded []byte, old, with string) []byte {
	if !bytes.Contains(encoded, []byte(old)) {
		return nil
	}
	return bytes.Replace(encoded, []byte(old), []byte(with), 1)
}

// plant puts a value into the field at a path, through lists as well.
func plant(m protoreflect.Message, path string, value protoreflect.Value) {
	name, rest, deeper := strings.Cut(path, ".")
	fd := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	switch {
	case deeper && fd.IsList():
		plant(m.Mutable(fd).List().AppendMutable().Message(), rest, value)
	case deeper:
		plant(m.Mutable(fd).Message(), rest, value)
	case fd.IsList():
		m.Mutable(fd).List().Append(value)
	default:
		m.Set(fd, value)
	}
}

// search collects what must not hold a secret.
type search struct {
	t       *testing.T
	secrets secrets
	exact   []string // further secrets, or parts of them: what was answered, and what was not planted
	calls   int
}

func (s *search) look(where, text string) {
	s.t.Helper()
	if planted.MatchString(text) {
		s.t.Errorf("%s shows a secret that was %s", where, s.secrets.place(text))
	}
}

// lookForExact looks for what was answered. The answers themselves hold it.
func (s *search) lookForExact(where, text string) {
	s.t.Helper()
	for _, secret := range s.exact {
		if i := strings.Index(text, secret); i >= 0 {
			s.t.Errorf("%s shows a secret: …%q…", where, text[max(0, i-200):min(len(text), i+len(secret)+20)])
		}
	}
}

// remember takes tokens into the search: the beginning and the end of each, because a part is bad enough. Of a JSON Web
// Token it is the signature: the rest says nothing that is secret.
func (s *search) remember(tokens ...string) {
	const part = 20
	for _, token := range tokens {
		token = token[strings.LastIndex(token, ".")+1:]
		if len(token) < 2*part {
			s.t.Fatalf("a token of %d characters", len(token))
		}
		s.exact = append(s.exact, token[:part], token[len(token)-part:])
	}
}

// call makes a call that may fail in any way, and looks at the answer.
func (s *search) call(w wire, m method, token string, body []byte, where string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	r, err := w.call(ctx, m, token, body)
	s.calls++
	if err != nil {
		s.t.Errorf("%s: %v", where, err)
		return
	}
	s.look("the answer to "+where, r.all)
	if r.status == nil {
		return
	}
	raw, err := proto.Marshal(r.status) // its details are encoded in what came
	if err != nil {
		s.t.Fatal(err)
	}
	s.look("the error of "+where, string(raw))
	s.lookForExact("the error of "+where, r.all+string(raw))
}

// TestSecretsAreNeverWritten puts secrets into every field that the contract says is one, in requests that are right and
// in requests that are wrong, over everything that the gateway and the services speak, and looks for them in all that the
// process writes, exports and answers.
func TestSecretsAreNeverWritten(t *testing.T) {
	collector := kittest.NewCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.Endpoint)
	t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100000") // no span is left out
	h := open(t, "--log-level=debug", "--usage-sample=1", "--trace-ratio=1")
	s := &search{t: t, exact: []string{password}}
	people := []account{h.join(t, ""), h.join(t, "")}
	for _, a := range people {
		s.remember(a.access, a.refresh)
	}
	admin := h.join(t, h.find(`"admin_code": "([^"]+)"`)[1])
	s.remember(admin.access, admin.refresh)
	through := h.doors(t, nil)
	b := s.browse(through.web, admin)
	edge := append(slices.Clone(through.edge), connectWire{through.web, "proto"}, webWire{through.web, "json"})
	direct := h.doors(t, certificate(t, h.pki, kit.Developer)).direct

	fields := 0
	for _, m := range contract(t) {
		ways := append(slices.Clone(edge), direct[m.service])
		for _, field := range secretFields(m.Input()) {
			fields++
			for _, w := range ways {
				if w.serves(m) {
					s.plantIn(w, m, field, h, people[0])
				}
			}
			s.plantInQuery(through.web, m, field, h)
		}
		for _, w := range ways {
			if w.serves(m) {
				s.showTokens(w, m, h)
			}
		}
	}
	if fields < 8 {
		t.Errorf("the contract has %d secret fields in requests", fields)
	}
	s.live(h, people[1])

	b.lookAtEvents(h.finish(t, people[0]))
	b.lookAtReads(people[0])
	b.lookAtPages()
	port := h.find(`^ +admin +(http://\S+)`)[1]
	b.lookAtAdmin(port)
	metrics := scrape(t, port+"/metrics")
	if !strings.Contains(metrics, `grpc_method="SignIn"`) {
		t.Error("the metrics do not speak of the calls: they cannot tell")
	}
	used := scrape(t, port+"/usage")
	if !strings.Contains(used, `"field": "password"`) {
		t.Error("the usage does not speak of the secrets: it cannot tell")
	}

	if code := h.signal(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	out := h.out.String()
	if n := strings.Count(out, "request_id="); n < s.calls {
		t.Errorf("the log has %d lines for %d calls: it cannot tell", n, s.calls)
	}
	for line := range strings.Lines(out) {
		s.show("the log", line)
	}
	s.lookAtTraces(collector, out)
	files, stored := 0, false
	err := filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files++
		stored = stored || bytes.Contains(data, []byte(people[0].email))
		s.show(path, string(data))
		return err
	})
	if err != nil || !stored {
		t.Errorf("%d files, and in none what is no secret and was stored: they cannot tell (%v)", files, err)
	}
	t.Logf("%d secret fields, %d secrets, %d calls, %d files", fields, len(s.secrets.places), s.calls, files)
}

// scrape returns what an HTTP address answers with 200.
func scrape(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(body)
}

// plantIn makes calls with a secret in one field, in every form, and in one that is too long.
func (s *search) plantIn(w wire, m method, field secretField, h *house, a account) {
	s.t.Helper()
	token := ""
	if m.isFor(policyv1.Audience_AUDIENCE_USER) {
		token = a.access
	}
	for _, f := range append(forms(), form{name: "too long"}) {
		where := fmt.Sprintf("%s %s over %s, %s", m.path(), field.path, w, f.name)
		secret := s.secrets.next(where)
		value := secret
		if f.write == nil {
			value = strings.Repeat(secret, 1000)
		}
		req := h.next().request(m, a.id)
		switch field.fd.Kind() {
		case protoreflect.StringKind:
			plant(req, field.path, protoreflect.ValueOfString(value))
		case protoreflect.BytesKind:
			plant(req, field.path, protoreflect.ValueOfBytes([]byte(value)))
		default:
			s.t.Fatalf("%s: a secret of kind %v: teach this test to plant one", where, field.fd.Kind())
		}
		body, err := w.encode(req)
		if err != nil {
			s.t.Fatal(err)
		}
		if f.write != nil {
			body = f.write(body, secret)
		}
		if body != nil {
			s.call(w, m, token, body, where)
		}
	}
}

// plantInQuery makes requests that carry a field where no field belongs.
func (s *search) plantInQuery(web httpWire, m method, field secretField, h *house) {
	s.t.Helper()
	body, err := restWire{}.encode(h.next().request(m, h.next().uuid()))
	if err != nil {
		s.t.Fatal(err)
	}
	targets := []string{m.path()}
	if rest := (restWire{web, 0}); rest.serves(m) {
		_, target, _ := rest.place(m, body)
		targets = append(targets, target)
	}
	for _, target := range targets {
		for _, verb := range []string{http.MethodPost, http.MethodGet} {
			where := fmt.Sprintf("%s of %s %s", field.path, verb, target)
			secret := s.secrets.next(where)
			for _, query := range []url.Values{
				{"connect": {"v1"}, "encoding": {"json"}, "message": {`{"x": "` + secret + `"}`}},
				{field.path: {secret}},
				{field.path: {secret + "\xff"}},
				{field.path + ".x": {secret}},
				{field.path: {secret}, "nonesuch": {secret}},
			} {
				resp, data, err := web.send(s.t.Context(), verb, target+"?"+query.Encode(), "application/json", "", body, io.ReadAll)
				if err != nil {
					s.t.Error(err)
					continue
				}
				s.calls++
				s.look("the answer to "+where, everything(resp, data))
			}
		}
	}
}

// showTokens makes calls with access tokens that are none.
func (s *search) showTokens(w wire, m method, h *house) {
	s.t.Helper()
	where := fmt.Sprintf("the token of %s over %s", m.path(), w)
	secret := s.secrets.next(where)
	b64 := base64.RawURLEncoding
	signed := b64.EncodeToString([]byte(`{"alg":"EdDSA","kid":"x"}`)) + "." +
		b64.EncodeToString([]byte(`{"sub":"`+secret+`"}`)) + "." + b64.EncodeToString([]byte(secret))
	body, err := w.encode(h.next().request(m, h.next().uuid()))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, token := range []string{secret, signed, secret + ".x.y", strings.Repeat(secret, 700)} {
		s.call(w, m, token, body, where)
	}
}

// live has secrets that work: passwords that are right, tokens that are renewed, reused and given back.
func (s *search) live(h *house, a account) {
	t := s.t
	t.Helper()
	ctx := within(t)
	sessions := authv1.NewSessionServiceClient(h.edge.conn)
	next := s.secrets.next("a password that works")
	me := person{ctx: ctx, sessions: sessions}
	me.signIn(t, a.email)
	_, err := sessions.ChangePassword(me.ctx, &authv1.ChangePasswordRequest{
		UserId: a.id, CurrentPassword: password, NewPassword: next, RequestId: h.next().uuid(),
	})
	if err != nil {
		t.Fatal(err)
	}
	remember := func(m proto.Message) {
		found := secretsIn(m.ProtoReflect())
		if len(found) < 2 {
			t.Fatalf("%d secrets in a %T", len(found), m)
		}
		s.remember(found...)
	}
	in, err := sessions.SignIn(ctx, &authv1.SignInRequest{Email: a.email, Password: next})
	if err != nil {
		t.Fatal(err)
	}
	remember(in)
	wrong := s.secrets.next("a password that is wrong")
	if _, err := sessions.SignIn(ctx, &authv1.SignInRequest{Email: a.email, Password: wrong}); err == nil {
		t.Error("a wrong password signs in")
	} else {
		s.look("the error of a wrong password", err.Error())
	}
	first := in.GetTokens().GetRefreshToken()
	renewed, err := sessions.RefreshSession(ctx, &authv1.RefreshSessionRequest{RefreshToken: first})
	if err != nil {
		t.Fatal(err)
	}
	remember(renewed)
	if _, err := sessions.RefreshSession(ctx, &authv1.RefreshSessionRequest{RefreshToken: first}); err == nil {
		t.Error("a refresh token works twice")
	} else {
		s.lookForExact("the error of a refresh token that is used twice", err.Error())
	}
	if _, err := sessions.SignOut(ctx, &authv1.SignOutRequest{RefreshToken: renewed.GetTokens().GetRefreshToken()}); err != nil {
		t.Error(err)
	}
}
