package edge

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	"github.com/concordat-dev/concordat/kit/fault"
	"github.com/concordat-dev/concordat/kit/identity"
	"github.com/concordat-dev/concordat/services/gateway/internal/contract"
	"github.com/concordat-dev/concordat/services/gateway/internal/forward"
	"github.com/concordat-dev/concordat/services/gateway/internal/upstream"
)

// The paths that are not the contract's.
const (
	pathRoot    = "/"
	pathHealth  = "/healthz"
	pathReady   = "/readyz"
	pathOpenAPI = "/openapi.yaml"
	pathJWKS    = "/.well-known/jwks.json"
	pathOIDC    = "/.well-known/openid-configuration"
)

// documentTimeout bounds what a page asks of a service.
const documentTimeout = 2 * time.Second

// pages are what a stranger looks for first.
type pages struct{ byPath map[string]*page }

// page is one document, for GET and HEAD.
type page struct {
	get func(x *exchange) (contentType string, body []byte, err *fault.Fault)
}

func newPages(cfg Config) (*pages, error) {
	landing, err := newLanding(cfg)
	if err != nil {
		return nil, err
	}
	d := documents{cfg: cfg}
	return &pages{byPath: map[string]*page{
		pathRoot:    {landing.get},
		pathHealth:  {d.healthy},
		pathReady:   {d.ready},
		pathOpenAPI: {d.openAPI},
		pathJWKS:    {d.jwks},
		pathOIDC:    {d.openID},
	}}, nil
}

// find returns the page of a path, nil where there is none.
func (p *pages) find(path string) *page { return p.byPath[path] }

func (p *page) serve(x *exchange) {
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		x.w.Header().Set("Allow", "GET, HEAD")
		x.refuse(errMethod, http.StatusMethodNotAllowed)
		return
	}
	contentType, body, err := p.get(x)
	if err != nil {
		x.protocol = protocolREST
		x.refuse(err, 0)
		return
	}
	x.w.Header().Set("Content-Type", contentType)
	if x.status != 0 {
		x.w.WriteHeader(x.status)
	}
	if x.r.Method == http.MethodGet {
		_, _ = x.w.Write(body) // the caller may have left
	}
}

// documents are the pages for programs.
type documents struct{ cfg Config }

const typeJSON = "application/json"

// healthy says that the process is up, and nothing more.
func (d documents) healthy(*exchange) (string, []byte, *fault.Fault) {
	return typeJSON, []byte(`{"status":"ok"}` + "\n"), nil
}

type (
	readyJSON struct {
		Status    string      `json:"status"`
		Upstreams []stateJSON `json:"upstreams"`
	}
	stateJSON struct {
		Name   string         `json:"name"`
		Status upstream.State `json:"status"`
	}
)

// ready says whether every service can do its work, by asking: 503 where one cannot, or where the process stops.
func (d documents) ready(x *exchange) (string, []byte, *fault.Fault) {
	doc := readyJSON{Status: "ready", Upstreams: []stateJSON{}}
	for _, h := range d.cfg.Check(x.r.Context()) {
		doc.Upstreams = append(doc.Upstreams, stateJSON{h.Name, h.State})
		if h.State != upstream.Serving {
			doc.Status = "not ready"
		}
	}
	if d.cfg.Draining() {
		doc.Status = "draining"
	}
	if doc.Status != "ready" {
		x.status = http.StatusServiceUnavailable
	}
	return marshal(doc)
}

func marshal(doc any) (string, []byte, *fault.Fault) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(doc); err != nil {
		return "", nil, errInternal.Because(err)
	}
	return typeJSON, b.Bytes(), nil
}

// openAPI is the description of the REST side.
func (d documents) openAPI(x *exchange) (string, []byte, *fault.Fault) {
	x.w.Header().Set("Cache-Control", "public, max-age=60")
	return "application/yaml; charset=utf-8", d.cfg.OpenAPI, nil
}

type (
	jwksJSON struct {
		Keys []jwkJSON `json:"keys"`
	}
	jwkJSON struct {
		KeyType   string `json:"kty"`
		Curve     string `json:"crv"`
		X         string `json:"x"`
		KeyID     string `json:"kid"`
		Algorithm string `json:"alg"`
		Use       string `json:"use"`
	}
)

// jwks is auth.v1.KeyService/GetJwks as RFC 7517 writes it.
func (d documents) jwks(x *exchange) (string, []byte, *fault.Fault) {
	ctx, cancel := context.WithTimeout(identity.WithRequestID(x.r.Context(), x.origin.RequestID), documentTimeout)
	defer cancel()
	resp, err := authv1.NewKeyServiceClient(d.cfg.Conn(contract.Auth)).GetJwks(ctx, &authv1.GetJwksRequest{})
	if err != nil {
		return "", nil, forward.ErrUpstream.With("upstream", contract.Auth).Because(err)
	}
	doc := jwksJSON{Keys: []jwkJSON{}}
	for _, k := range resp.GetKeys() {
		doc.Keys = append(doc.Keys, jwkJSON{k.GetKty(), k.GetCrv(), k.GetX(), k.GetKid(), k.GetAlg(), k.GetUse()})
	}
	// A verifier asks again by itself when a token names a key that it does not know.
	x.w.Header().Set("Cache-Control", "public, max-age=60")
	return marshal(doc)
}

type openIDJSON struct {
	Issuer        string   `json:"issuer"`
	JWKSURI       string   `json:"jwks_uri"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Scopes        []string `json:"scopes_supported"`
	Claims        []string `json:"claims_supported"`
}

// openID is as much of OpenID Connect Discovery as a verifier of access tokens needs; there is no authorization endpoint.
func (d documents) openID(x *exchange) (string, []byte, *fault.Fault) {
	x.w.Header().Set("Cache-Control", "public, max-age=60")
	return marshal(openIDJSON{
		Issuer:        d.cfg.Issuer,
		JWKSURI:       strings.TrimRight(d.cfg.Issuer, "/") + pathJWKS,
		Algorithms:    []string{"EdDSA"},
		ResponseTypes: []string{"token"},
		SubjectTypes:  []string{"public"},
		Scopes:        d.cfg.Contract.Scopes(),
		Claims:        []string{"iss", "sub", "aud", "exp", "iat", "jti", "sid", "scope"},
	})
}

//go:embed landing.html
var landingHTML string

// landing is the page for people.
type landing struct {
	cfg      Config
	template *template.Template
	policy   string
}

func newLanding(cfg Config) (*landing, error) {
	t, err := template.New("landing").Parse(landingHTML)
	if err != nil {
		return nil, fmt.Errorf("landing page: %w", err)
	}
	_, rest, _ := strings.Cut(landingHTML, "<style>")
	style, _, ok := strings.Cut(rest, "</style>")
	if !ok {
		return nil, fmt.Errorf("landing page: it has no style")
	}
	sum := sha256.Sum256([]byte(style))
	return &landing{cfg: cfg, template: t, policy: "default-src 'none'; style-src 'sha256-" +
		base64.StdEncoding.EncodeToString(sum[:]) + "'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}, nil
}

// landingData is what the template sees.
type landingData struct {
	Page
	Services []landingService
	Commands []Command
}

type landingService struct {
	Name, Target string
	Up           bool
	Contract     []string
}

func (l *landing) get(x *exchange) (string, []byte, *fault.Fault) {
	data := landingData{Page: l.cfg.Page, Commands: l.cfg.Page.Commands()}
	states := make(map[string]upstream.State)
	for _, h := range l.cfg.Check(x.r.Context()) {
		states[h.Name] = h.State
	}
	for _, u := range l.cfg.Contract.Upstreams() {
		s := landingService{Name: u.Name, Target: l.cfg.Page.Targets[u.Name], Up: states[u.Name] == upstream.Serving}
		for _, d := range u.Services {
			s.Contract = append(s.Contract, string(d.FullName()))
		}
		data.Services = append(data.Services, s)
	}
	var b bytes.Buffer
	if err := l.template.Execute(&b, data); err != nil {
		return "", nil, errInternal.Because(err)
	}
	x.w.Header().Set("Content-Security-Policy", l.policy)
	return "text/html; charset=utf-8", b.Bytes(), nil
}
