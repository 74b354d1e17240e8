package app

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestRESTBindsPathQueryAndBody(t *testing.T) {
	w := start(t).ready()

	r := w.do("POST", "/v1/charges", charge("k-1", "1999"), jsonType, w.bearer())
	payment, _ := r.object(t)["payment"].(map[string]any)
	if r.code != 200 || payment["amount_cents"] != "1999" || payment["customer_id"] != ada || payment["state"] != "PAYMENT_STATE_CAPTURED" {
		t.Fatalf("charge: %d %s", r.code, r.body)
	}
	if m, ok := payment["metadata"].(map[string]any); !ok || len(m) != 0 {
		t.Errorf("a field without presence is left out where it is zero: %s", r.body)
	}
	id, _ := payment["payment_id"].(string)

	if r := w.do("GET", "/v1/payments/"+id, "", w.bearer()); r.code != 200 || !bytes.Contains(r.body, []byte(id)) {
		t.Errorf("path: %d %s", r.code, r.body)
	}
	for _, key := range []string{"k-2", "k-3"} {
		w.do("POST", "/v1/charges", charge(key, "100"), jsonType, w.bearer())
	}
	r = w.do("GET", "/v1/payments?customer_id="+ada+"&page_size=2", "", w.bearer())
	if list, _ := r.object(t)["payments"].([]any); len(list) != 2 || r.object(t)["next_page_token"] != "2" {
		t.Errorf("query: %d %s", r.code, r.body)
	}
	r = w.do("GET", "/v1/payments?customerId="+ada+"&pageToken=2", "", w.bearer())
	if list, _ := r.object(t)["payments"].([]any); len(list) != 1 || r.object(t)["next_page_token"] != "" {
		t.Errorf("query in lowerCamelCase: %d %s", r.code, r.body)
	}
	body := strings.NewReplacer("customer_id", "customerId", "amount_cents", "amountCents", `"1999"`, "1999").Replace(charge("k-1", "1999"))
	if r := w.do("POST", "/v1/charges", body, "content-type: application/json; charset=UTF-8", w.bearer()); r.code != 200 {
		t.Errorf("body in lowerCamelCase, integer as a number, charset: %d %s", r.code, r.body)
	}
	if r := w.do("POST", "/v1/users/"+ada+":lock", `{"etag":"e1"}`, jsonType, w.bearer()); r.code != 200 {
		t.Errorf("path with a verb and body: %d %s", r.code, r.body)
	}
	w.sessions.mu.Lock()
	defer w.sessions.mu.Unlock()
	if l := w.sessions.locked; len(l) != 1 || l[0].GetUserId() != ada || l[0].GetEtag() != "e1" {
		t.Errorf("the service got %v", l)
	}
}

func TestRESTReplaysAndSaysSo(t *testing.T) {
	w := start(t).ready()
	first := w.do("POST", "/v1/charges", charge("k", "1999"), jsonType, w.bearer())
	if got := first.header.Get("idempotency-replayed"); got != "" {
		t.Errorf("first: idempotency-replayed is %q", got)
	}
	second := w.do("POST", "/v1/charges", charge("k", "1999"), jsonType, w.bearer())
	if got := second.header.Values("idempotency-replayed"); !slices.Equal(got, []string{"true"}) {
		t.Errorf("second: idempotency-replayed is %q", got)
	}
	a, _ := first.object(t)["payment"].(map[string]any)
	b, _ := second.object(t)["payment"].(map[string]any)
	if a["payment_id"] == nil || a["payment_id"] != b["payment_id"] {
		t.Errorf("two payments: %s, %s", first.body, second.body)
	}
	third := w.do("POST", "/v1/charges", charge("k", "2000"), jsonType, w.bearer())
	third.wantStatus(t, 400, 9, "payments.v1 IDEMPOTENCY_KEY_REUSED")
}

func TestRESTErrorsHaveTheirDetails(t *testing.T) {
	w := start(t).ready()
	s := w.do("POST", "/v1/charges", charge("k", "49"), jsonType, w.bearer()).wantStatus(t, 400, 3, "policy.v1 INVALID_REQUEST")
	if got := s.violations(); !slices.Equal(got, []string{"amount_cents"}) {
		t.Errorf("violations of %v", got)
	}
	r := w.do("POST", "/v1/charges", charge("k", "1999"), jsonType)
	r.wantStatus(t, 401, 16, "policy.v1 CREDENTIALS_MISSING")
	if got := r.header.Get("www-authenticate"); got != "Bearer" {
		t.Errorf("www-authenticate is %q", got)
	}
	w.do("GET", "/v1/payments/"+ada, "", w.bearer()).wantStatus(t, 404, 5, "payments.v1 PAYMENT_NOT_FOUND")
	w.do("GET", "/v1/payments?customer_id="+ada, "", "authorization: Bearer "+w.token("users.read")).
		wantStatus(t, 403, 7, "policy.v1 SCOPE_MISSING")

	r = w.do("POST", "/v1/accounts", `{"email":"wait@example.com","password":"correct horse battery","display_name":"W","request_id":"`+ada+`"}`, jsonType)
	s = r.wantStatus(t, 409, 10, "auth.v1 SIGN_UP_IN_PROGRESS")
	delay := ""
	for _, d := range s.Details {
		delay += d.RetryDelay
	}
	if delay != "1.500s" || r.header.Get("retry-after") != "2" {
		t.Errorf("RetryInfo %q, Retry-After %q", delay, r.header.Get("retry-after"))
	}
}

func TestRESTRefusesWhatItCannotRead(t *testing.T) {
	w := start(t).ready()
	for name, c := range map[string]struct {
		method, path, body string
		headers            []string
		fields             []string
	}{
		"a body that ends too early":            {"POST", "/v1/charges", `{"order_id":`, []string{jsonType}, nil},
		"a body that is no JSON":                {"POST", "/v1/charges", `order_id=1`, []string{jsonType}, nil},
		"a body that is no object":              {"POST", "/v1/charges", `["order_id"]`, []string{jsonType}, nil},
		"an unknown field":                      {"POST", "/v1/charges", `{"order_id":"1","amount":1}`, []string{jsonType}, []string{"amount"}},
		"an unknown field inside":               {"POST", "/v1/charges", "{\n  \"metadata\": {\"ä\": \"b\"},\n  \"nope\": 1}", []string{jsonType}, []string{"nope"}},
		"a value of the wrong type":             {"POST", "/v1/charges", `{"amountCents":"many"}`, []string{jsonType}, []string{"amount_cents"}},
		"an unknown query parameter":            {"GET", "/v1/payments?nope=1", "", nil, []string{"nope"}},
		"a query parameter of the wrong type":   {"GET", "/v1/payments?page_size=many", "", nil, []string{"page_size"}},
		"a query beside a body that is all":     {"POST", "/v1/charges?order_id=hunter2", charge("k", "1999"), []string{jsonType}, nil},
		"a body where there is none to be":      {"GET", "/v1/payments", `{}`, []string{jsonType}, nil},
		"a body that says gzip and is not":      {"POST", "/v1/charges", charge("k", "1999"), []string{jsonType, "content-encoding: gzip"}, nil},
		"a timeout that is none":                {"POST", "/v1/charges", charge("k", "1999"), []string{jsonType, "x-server-timeout: soon"}, nil},
		"a parameter with a secret in its text": {"GET", "/v1/payments?page_size=hunter2", "", nil, []string{"page_size"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.do(c.method, c.path, c.body, append(c.headers, w.bearer())...)
			s := r.wantStatus(t, 400, 3, "policy.v1 MALFORMED_REQUEST")
			if got := s.violations(); !slices.Equal(got, c.fields) {
				t.Errorf("violations of %v, want %v: %s", got, c.fields, r.body)
			}
			if bytes.Contains(r.body, []byte("hunter2")) {
				t.Errorf("the value is repeated: %s", r.body)
			}
		})
	}
	if len(w.money.payments) != 0 {
		t.Errorf("a refused charge was made: %v", w.money.payments)
	}
	w.do("POST", "/v1/charges", "a=b", "content-type: application/x-www-form-urlencoded").wantStatus(t, 415, 3, "policy.v1 MALFORMED_REQUEST")
	w.do("POST", "/v1/charges", "{}", jsonType, "content-encoding: br").wantStatus(t, 415, 3, "policy.v1 MALFORMED_REQUEST")
	r := w.do("PUT", "/v1/charges", "{}", jsonType)
	r.wantStatus(t, 405, 12, "policy.v1 UNIMPLEMENTED")
	if got := r.header.Get("allow"); got != "POST" {
		t.Errorf("allow is %q", got)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	w := start(t, func(c *Config) { c.MaxBody = 4096 }).ready()
	filler := strings.Repeat(" ", 4096)
	large := filler + charge("k", "1999")
	w.do("POST", "/v1/charges", large, jsonType, w.bearer()).wantStatus(t, 413, 8, "policy.v1 MESSAGE_TOO_LARGE")

	req, err := http.NewRequestWithContext(t.Context(), "POST", w.base+"/v1/charges", struct{ *strings.Reader }{strings.NewReader(large)})
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("content-type", "application/json") // of unknown length
	w.send(http.DefaultClient, req).wantStatus(t, 413, 8, "policy.v1 MESSAGE_TOO_LARGE")

	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := z.Write([]byte(large)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	w.do("POST", "/v1/charges", bomb.String(), jsonType, "content-encoding: gzip", w.bearer()).
		wantStatus(t, 413, 8, "policy.v1 MESSAGE_TOO_LARGE")

	var small bytes.Buffer
	z = gzip.NewWriter(&small)
	if _, err := z.Write([]byte(charge("k", "1999"))); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if r := w.do("POST", "/v1/charges", small.String(), jsonType, "content-encoding: gzip", w.bearer()); r.code != 200 {
		t.Errorf("a small compressed body: %d %s", r.code, r.body)
	}
	w.do("GET", "/v1/payments?customer_id="+ada, "", "x-filler: "+strings.Repeat("x", 16<<10)).wantStatus(t, 431, 8, "policy.v1 MESSAGE_TOO_LARGE")
	w.do("GET", "/v1/"+strings.Repeat("x", 4000), "").wantStatus(t, 414, 12, "policy.v1 UNIMPLEMENTED")
}
