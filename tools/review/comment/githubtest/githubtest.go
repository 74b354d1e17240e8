// Package githubtest is GitHub's REST API as far as a comment on a pull request needs it, for tests: it keeps pull
// requests and comments in memory, hands them out by pages, and refuses what the real one refuses.
package githubtest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// The tokens that a Server knows. Both belong to Bot.
const (
	WriteToken = "may-write-pull-requests"
	ReadToken  = "may-only-read"
	Bot        = "github-actions[bot]"
)

// A Pull is a pull request.
type Pull struct {
	Number int
	// State is open or closed.
	State string
	// Repo, Branch and SHA are its head. An empty Repo is a fork that was deleted.
	Repo, Branch, SHA string
}

// A Comment is a comment on a pull request.
type Comment struct {
	ID    int64
	Login string
	Body  string
}

// A Server holds one repository. Its methods are safe for concurrent use.
type Server struct {
	// URL is the root of the API.
	URL string
	// Repo is the repository, as owner/name.
	Repo string

	mu       sync.Mutex
	pulls    []Pull
	comments map[int][]Comment
	lastID   int64
	requests []string
	before   func(http.ResponseWriter, *http.Request) bool
}

// New starts a server that ends with the test.
func New(t testing.TB, repo string) *Server {
	s := &Server{Repo: repo, comments: map[int][]Comment{}, lastID: 1000}
	mux := http.NewServeMux()
	root := "/repos/" + repo
	mux.HandleFunc("GET "+root+"/pulls", s.listPulls)
	mux.HandleFunc("GET "+root+"/pulls/{number}", s.getPull)
	mux.HandleFunc("GET "+root+"/issues/{number}/comments", s.listComments)
	mux.HandleFunc("POST "+root+"/issues/{number}/comments", s.create)
	mux.HandleFunc("PATCH "+root+"/issues/comments/{id}", s.update)
	server := httptest.NewServer(s.guard(mux))
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// Open adds a pull request, or changes the one of that number.
func (s *Server) Open(p Pull) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pulls = append(slices.DeleteFunc(s.pulls, func(old Pull) bool { return old.Number == p.Number }), p)
}

// Say adds a comment of an account and returns its id.
func (s *Server) Say(number int, login, body string) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	s.comments[number] = append(s.comments[number], Comment{s.lastID, login, body})
	return s.lastID
}

// Comments returns the comments on a pull request, the oldest first.
func (s *Server) Comments(number int) []Comment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.comments[number])
}

// Requests returns every request so far, as "METHOD path".
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Before has a function see each request first; where it returns true it has answered.
func (s *Server) Before(f func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

// guard refuses who may not.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r.Method+" "+r.URL.Path)
		before := s.before
		s.mu.Unlock()
		if before != nil && before(w, r) {
			return
		}
		switch r.Header.Get("Authorization") {
		case "Bearer " + WriteToken:
		case "Bearer " + ReadToken:
			if r.Method != http.MethodGet {
				Refuse(w, http.StatusForbidden, "Resource not accessible by integration")
				return
			}
		default:
			Refuse(w, http.StatusUnauthorized, "Bad credentials")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Refuse answers as GitHub does where something failed.
func Refuse(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]string{"message": message})
}

func answer(w http.ResponseWriter, status int, what any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(what) // who does not listen any more is told nothing
}

func (p Pull) json() map[string]any {
	head := map[string]any{"sha": p.SHA, "ref": p.Branch, "repo": nil}
	if p.Repo != "" {
		head["repo"] = map[string]any{"full_name": p.Repo}
	}
	return map[string]any{"number": p.Number, "state": p.State, "head": head}
}

func (s *Server) json(c Comment) map[string]any {
	return map[string]any{
		"id": c.ID, "body": c.Body, "html_url": fmt.Sprintf("%s/%s/comment-%d", s.URL, s.Repo, c.ID), "user": map[string]any{"login": c.Login},
	}
}

// page answers with one page of a list.
func (s *Server) page(w http.ResponseWriter, r *http.Request, list []map[string]any) {
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(r.URL.Query().Get(name)); err == nil {
			return n
		}
		return otherwise
	}
	size, page := min(number("per_page", 30), 100), number("page", 1)
	from, to := min((page-1)*size, len(list)), min(page*size, len(list))
	if to < len(list) {
		// The host is another one on purpose: who follows it sends the token there.
		w.Header().Set("Link", fmt.Sprintf("<http://elsewhere.invalid%s?page=%d>; rel=\"next\"", r.URL.Path, page+1))
	}
	answer(w, http.StatusOK, append([]map[string]any{}, list[from:to]...))
}

func (s *Server) listPulls(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	owner, branch, filtered := strings.Cut(r.URL.Query().Get("head"), ":")
	var list []map[string]any
	for _, p := range s.pulls {
		of, _, _ := strings.Cut(p.Repo, "/")
		if p.State == r.URL.Query().Get("state") && (!filtered || of == owner && p.Branch == branch) {
			list = append(list, p.json())
		}
	}
	s.page(w, r, list)
}

func (s *Server) getPull(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pulls {
		if strconv.Itoa(p.Number) == r.PathValue("number") {
			answer(w, http.StatusOK, p.json())
			return
		}
	}
	Refuse(w, http.StatusNotFound, "Not Found")
}

func (s *Server) listComments(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	number, _ := strconv.Atoi(r.PathValue("number")) // no number has no comments
	var list []map[string]any
	for _, c := range s.comments[number] {
		list = append(list, s.json(c))
	}
	s.page(w, r, list)
}

// content reads the body of a comment, and refuses one that GitHub refuses.
func content(w http.ResponseWriter, r *http.Request) (string, bool) {
	var sent struct {
		Body string `json:"body"`
	}
	data, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(data, &sent) != nil || sent.Body == "" || len([]rune(sent.Body)) > 65536 {
		Refuse(w, http.StatusUnprocessableEntity, "Validation Failed")
		return "", false
	}
	return sent.Body, true
}

func (s *Server) create(w http.ResponseWriter, r *http.Request) {
	body, ok := content(w, r)
	if !ok {
		return
	}
	number, err := strconv.Atoi(r.PathValue("number"))
	if err != nil {
		Refuse(w, http.StatusNotFound, "Not Found")
		return
	}
	id := s.Say(number, Bot, body)
	answer(w, http.StatusCreated, s.json(Comment{id, Bot, body}))
}

func (s *Server) update(w http.ResponseWriter, r *http.Request) {
	body, ok := content(w, r)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, list := range s.comments {
		for n := range list {
			if strconv.FormatInt(list[n].ID, 10) == r.PathValue("id") {
				list[n].Body = body
				answer(w, http.StatusOK, s.json(list[n]))
				return
			}
		}
	}
	Refuse(w, http.StatusNotFound, "Not Found")
}
