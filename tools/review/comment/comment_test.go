package comment_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/concordat-dev/concordat/tools/review/comment"
	"github.com/concordat-dev/concordat/tools/review/comment/githubtest"
)

const (
	marker = "<!-- marker -->"
	ours   = "acme/shop"
	sha    = "0123456789abcdef0123456789abcdef01234567"
	other  = "fedcba9876543210fedcba9876543210fedcba98"
)

// A clock is moved by who waits for it.
type clock struct {
	now   time.Time
	waits []time.Duration
}

func (c *clock) wait(ctx context.Context, d time.Duration) error {
	c.now, c.waits = c.now.Add(d), append(c.waits, d)
	if len(c.waits) > 20 {
		return errors.New("waited twenty times") // who would wait for ever fails the test in place of hanging it
	}
	return ctx.Err()
}

func poster(server *githubtest.Server) (*comment.Poster, *clock) {
	c := &clock{now: time.Now()}
	return &comment.Poster{
		API: server.URL, Repo: ours, Token: githubtest.WriteToken, Author: githubtest.Bot, Marker: marker,
		Client: &http.Client{Timeout: 10 * time.Second}, Wait: c.wait, Now: func() time.Time { return c.now },
	}, c
}

func put(t *testing.T, p *comment.Poster, body string) comment.Result {
	t.Helper()
	result, err := p.Put(t.Context(), 7, body)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func TestEachRunWritesOverTheCommentOfTheOneBefore(t *testing.T) {
	server := githubtest.New(t, ours)
	p, _ := poster(server)
	server.Say(7, "ann", "Looks good.")
	for n, row := range []struct{ body, what string }{
		{marker + "\nfirst", "created"}, {marker + "\nsecond", "updated"}, {marker + "\nsecond\n", "unchanged"}, {marker + "\nthird", "updated"},
	} {
		if result := put(t, p, row.body); result.What != row.what || result.URL == "" {
			t.Errorf("run %d: %+v; want %s", n+1, result, row.what)
		}
	}
	left := server.Comments(7)
	if len(left) != 2 || left[0].Body != "Looks good." || left[1].Body != marker+"\nthird" {
		t.Errorf("left %+v; want the word of ann and the third report", left)
	}
}

func TestOnlyACommentOfOursThatBeginsWithTheMarkerIsWrittenOver(t *testing.T) {
	server := githubtest.New(t, ours)
	p, _ := poster(server)
	server.Say(7, "mallory", marker+"\nAll is well.")
	server.Say(7, githubtest.Bot, "Of another workflow, which quotes "+marker)
	put(t, p, marker+"\nreport")
	left := server.Comments(7)
	if len(left) != 3 || left[0].Body != marker+"\nAll is well." || !strings.HasPrefix(left[1].Body, "Of another") || left[2].Body != marker+"\nreport" {
		t.Errorf("left %+v; want both as they were and a third", left)
	}
}

func TestACommentIsFoundBehindManyPages(t *testing.T) {
	server := githubtest.New(t, ours)
	p, _ := poster(server)
	for n := range 230 {
		server.Say(7, "ann", fmt.Sprint("talk ", n))
	}
	server.Say(7, githubtest.Bot, marker+"\nold")
	if result := put(t, p, marker+"\nnew"); result.What != "updated" {
		t.Errorf("%s; want updated", result.What)
	}
	if len(server.Comments(7)) != 231 {
		t.Errorf("%d comments; want 231", len(server.Comments(7)))
	}
}

func TestWhatPassesIsTriedAgain(t *testing.T) {
	for _, row := range []struct {
		name   string
		answer func(w http.ResponseWriter, now time.Time)
		least  time.Duration
	}{
		{"a failure of the server", func(w http.ResponseWriter, _ time.Time) { githubtest.Refuse(w, 502, "Bad Gateway") }, time.Second},
		{"a page of a proxy", func(w http.ResponseWriter, _ time.Time) {
			http.Error(w, "<html>busy</html>", http.StatusServiceUnavailable)
		}, time.Second},
		{"a secondary rate limit that says how long", func(w http.ResponseWriter, _ time.Time) {
			w.Header().Set("Retry-After", "17")
			githubtest.Refuse(w, 403, "You have exceeded a secondary rate limit.")
		}, 17 * time.Second},
		{"a secondary rate limit that does not", func(w http.ResponseWriter, _ time.Time) {
			githubtest.Refuse(w, 403, "You have exceeded a secondary rate limit.")
		}, time.Minute},
		{"a used up rate limit", func(w http.ResponseWriter, now time.Time) {
			w.Header().Set("X-RateLimit-Remaining", "0")
			w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(now.Add(90*time.Second).Unix(), 10))
			githubtest.Refuse(w, 429, "API rate limit exceeded")
		}, 89 * time.Second},
		{"a connection that breaks", func(http.ResponseWriter, time.Time) { panic(http.ErrAbortHandler) }, time.Second},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			t.Run(row.name+" of a "+method, func(t *testing.T) {
				server := githubtest.New(t, ours)
				p, c := poster(server)
				began, failed := c.now, 0
				server.Before(func(w http.ResponseWriter, r *http.Request) bool {
					if r.Method != method || failed == 2 {
						return false
					}
					failed++
					row.answer(w, began)
					return true
				})
				if result := put(t, p, marker+"\nreport"); result.What != "created" || len(server.Comments(7)) != 1 {
					t.Errorf("%+v, %d comments; want one that was created", result, len(server.Comments(7)))
				}
				if failed != 2 || len(c.waits) != 2 || c.waits[0] < row.least {
					t.Errorf("failed %d times, waited %v; want two waits, the first of at least %s", failed, c.waits, row.least)
				}
			})
		}
	}
}

func TestAWriteWhoseAnswerWasLostIsNotMadeTwice(t *testing.T) {
	server := githubtest.New(t, ours)
	p, _ := poster(server)
	lost := false
	server.Before(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || lost {
			return false
		}
		lost = true
		server.Say(7, githubtest.Bot, marker+"\nreport")
		githubtest.Refuse(w, 504, "Gateway Timeout")
		return true
	})
	if result := put(t, p, marker+"\nreport"); result.What != "unchanged" || len(server.Comments(7)) != 1 {
		t.Errorf("%+v, comments %+v; want the one that was made", result, server.Comments(7))
	}
}

func TestTryingEndsWithTheContext(t *testing.T) {
	server := githubtest.New(t, ours)
	p, c := poster(server)
	server.Before(func(w http.ResponseWriter, _ *http.Request) bool {
		githubtest.Refuse(w, 500, "Server Error")
		return true
	})
	ctx, cancel := context.WithDeadline(t.Context(), c.now.Add(20*time.Second))
	defer cancel()
	_, err := p.Put(ctx, 7, marker)
	if err == nil || !strings.Contains(err.Error(), "500") || !strings.Contains(err.Error(), "no time is left") {
		t.Errorf("got %v; want that no time is left, and the 500", err)
	}
	if n := len(c.waits); n != 4 { // 1 + 2 + 4 + 8 s; 16 more are beyond 20
		t.Errorf("waited %v; want four times", c.waits)
	}

	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := p.Put(stopped, 7, marker); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v; want %v", err, context.Canceled)
	}
}

func TestWhatTimeDoesNotMendIsSaidAtOnce(t *testing.T) {
	redirect := func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "/elsewhere", http.StatusMovedPermanently)
		return true
	}
	for _, row := range []struct {
		name   string
		change func(*comment.Poster, *githubtest.Server)
		body   string
		says   string
	}{
		{"a token that may only read", func(p *comment.Poster, _ *githubtest.Server) { p.Token = githubtest.ReadToken }, marker, "pull-requests: write"},
		{"no token of this API", func(p *comment.Poster, _ *githubtest.Server) { p.Token = "stale" }, marker, "GITHUB_TOKEN"},
		{"a repository that was renamed", func(_ *comment.Poster, s *githubtest.Server) { s.Before(redirect) }, marker, "renamed"},
		{"a body without the marker", func(*comment.Poster, *githubtest.Server) {}, "report", "marker"},
		{"a body that is too long", func(*comment.Poster, *githubtest.Server) {}, marker + strings.Repeat("é", comment.MaxBody), "65536"},
		{"a repository that is none", func(p *comment.Poster, _ *githubtest.Server) { p.Repo = "acme/shop/../../user" }, marker, "owner/name"},
		{"an answer that is no JSON", func(_ *comment.Poster, s *githubtest.Server) {
			s.Before(func(w http.ResponseWriter, _ *http.Request) bool { fmt.Fprint(w, "welcome"); return true })
		}, marker, "documents"},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := githubtest.New(t, ours)
			p, c := poster(server)
			row.change(p, server)
			_, err := p.Put(t.Context(), 7, row.body)
			if err == nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("got %v; want %q in it", err, row.says)
			}
			if len(c.waits) > 0 || len(server.Comments(7)) > 0 {
				t.Errorf("waited %v and left %v; want neither", c.waits, server.Comments(7))
			}
		})
	}
}

func TestAPullRequestIsFoundByWhatGitHubSaysOfTheRun(t *testing.T) {
	run := comment.Head{Repo: "mallory/shop", Branch: "change", SHA: sha}
	mine := githubtest.Pull{Number: 9, State: "open", Repo: "mallory/shop", Branch: "change", SHA: sha}
	with := func(change func(*githubtest.Pull)) githubtest.Pull {
		p := mine
		p.Number = 8
		change(&p)
		return p
	}
	for _, row := range []struct {
		name  string
		pulls []githubtest.Pull
		want  int
		err   error // nil with want 0 means any other error
	}{
		{"the one of that branch and commit", []githubtest.Pull{mine}, 9, nil},
		// Whoever can read a commit can push it to a fork of their own: the commit alone proves nothing.
		{"not somebody else's with the same commit", []githubtest.Pull{with(func(p *githubtest.Pull) { p.Repo = "ann/shop" })}, 0, comment.ErrMovedOn},
		{"not one of another repository of the same owner", []githubtest.Pull{with(func(p *githubtest.Pull) { p.Repo = "mallory/shop-2" })}, 0, comment.ErrMovedOn},
		{"not one that was pushed to again", []githubtest.Pull{with(func(p *githubtest.Pull) { p.SHA = other })}, 0, comment.ErrMovedOn},
		{"not one that is closed", []githubtest.Pull{with(func(p *githubtest.Pull) { p.State = "closed" })}, 0, comment.ErrMovedOn},
		{"not one of another branch", []githubtest.Pull{with(func(p *githubtest.Pull) { p.Branch = "main" })}, 0, comment.ErrMovedOn},
		{"not one whose fork is gone", []githubtest.Pull{with(func(p *githubtest.Pull) { p.Repo = "" })}, 0, comment.ErrMovedOn},
		{"the right one among others", []githubtest.Pull{with(func(p *githubtest.Pull) { p.Repo = "ann/shop" }), mine}, 9, nil},
		{"neither of two", []githubtest.Pull{mine, with(func(*githubtest.Pull) {})}, 0, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := githubtest.New(t, ours)
			// Nothing is left to the filter of the API: this server has none.
			server.Before(func(_ http.ResponseWriter, r *http.Request) bool {
				query := r.URL.Query()
				query.Del("head")
				r.URL.RawQuery = query.Encode()
				return false
			})
			for _, pull := range row.pulls {
				server.Open(pull)
			}
			p, _ := poster(server)
			got, err := p.Find(t.Context(), run)
			if got != row.want || row.err != nil && !errors.Is(err, row.err) || row.want == 0 && row.err == nil && (err == nil || errors.Is(err, comment.ErrMovedOn)) {
				t.Errorf("got #%d, %v; want #%d, %v", got, err, row.want, row.err)
			}
		})
	}
}

func TestAPullRequestThatMovedOnIsNotWrittenTo(t *testing.T) {
	server := githubtest.New(t, ours)
	p, _ := poster(server)
	for _, row := range []struct {
		pull githubtest.Pull
		want error
	}{
		{githubtest.Pull{Number: 7, State: "open", Repo: ours, Branch: "change", SHA: sha}, nil},
		{githubtest.Pull{Number: 7, State: "open", Repo: ours, Branch: "change", SHA: other}, comment.ErrMovedOn},
		{githubtest.Pull{Number: 7, State: "closed", Repo: ours, Branch: "change", SHA: sha}, comment.ErrMovedOn},
	} {
		server.Open(row.pull)
		if err := p.Check(t.Context(), 7, sha); !errors.Is(err, row.want) {
			t.Errorf("%+v: got %v; want %v", row.pull, err, row.want)
		}
	}
	if err := p.Check(t.Context(), 7, sha[:12]); err == nil || errors.Is(err, comment.ErrMovedOn) {
		t.Errorf("a short commit id: got %v; want a refusal", err)
	}
}

func TestWhatAForkWroteNotifiesNobodyAndSaysWhereItComesFrom(t *testing.T) {
	got := comment.Foreign(marker+"\n### All is well, says @acme/security\n", marker, "mallory/shop")
	first, rest, _ := strings.Cut(strings.TrimPrefix(got, marker+"\n"), "\n")
	if !strings.HasPrefix(got, marker) || !strings.Contains(first, "mallory/shop") || strings.Contains(rest, "@acme") || !strings.Contains(rest, "All is well") {
		t.Errorf("got %q", got)
	}
	if got := comment.Foreign("no marker", marker, "mallory/shop"); got != "no marker" {
		t.Errorf("got %q; want it as it is, to be refused", got)
	}
}
