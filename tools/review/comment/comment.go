// Package comment keeps one comment on a pull request up to date, over GitHub's REST API: the first run writes it, every
// later one writes over it.
//
// It writes over nothing that somebody else wrote: the comment has to begin with the marker and to come from the account
// that the token belongs to. And it writes to no pull request that the caller cannot prove to be the one that a run was
// for: a pull request is found by the repository, branch and commit that GitHub says the run had, never by what the run
// itself left behind.
package comment

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxBody is how long a comment may be, in characters: what GitHub takes.
const MaxBody = 65536

// ErrMovedOn: no open pull request has that commit as its head. It was pushed to again or closed, and what is known of
// the commit is no longer news.
var ErrMovedOn = errors.New("no open pull request has this head")

// A Poster reads pull requests of one repository and keeps a comment on them.
type Poster struct {
	// API is the root of the REST API, such as https://api.github.com, without a slash at its end. Required.
	API string
	// Repo is the repository, as owner/name. Required.
	Repo string
	// Token is sent with every request. Required. It needs to read and write pull requests, and nothing else.
	Token string
	// Author is the login of the account that the token belongs to: github-actions[bot] for the token of a workflow.
	// Comments of other accounts are left alone. Required.
	Author string
	// Marker is what the comment begins with. Required.
	Marker string
	// Client sends the requests; its timeout is that of one of them. Required.
	Client *http.Client
	// Wait returns after the time, or with the error of the context where that ends before. Required.
	Wait func(context.Context, time.Duration) error
	// Now is the time, by which the end of a rate limit is judged. Required.
	Now func() time.Time
}

// A Head is what a run was for, as GitHub says it.
type Head struct {
	// Repo is the repository that the branch is in, as owner/name: a fork, or the repository itself.
	Repo string
	// Branch is its name, without refs/heads/.
	Branch string
	// SHA is the full commit id.
	SHA string
}

// A Result is what Put did.
type Result struct {
	// URL is where a person finds the comment.
	URL string
	// What is created, updated, or unchanged.
	What string
}

var (
	repoName = regexp.MustCompile(`^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$`)
	commitID = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)
)

// pull is what is needed of a pull request.
type pull struct {
	Number int    `json:"number"`
	State  string `json:"state"`
	Head   struct {
		SHA  string `json:"sha"`
		Ref  string `json:"ref"`
		Repo *struct {
			FullName string `json:"full_name"`
		} `json:"repo"`
	} `json:"head"`
}

// entry is what is needed of a comment.
type entry struct {
	ID   int64  `json:"id"`
	Body string `json:"body"`
	URL  string `json:"html_url"`
	User struct {
		Login string `json:"login"`
	} `json:"user"`
}

// Check tells whether a pull request is open and has the commit as its head; it returns ErrMovedOn where not.
func (p *Poster) Check(ctx context.Context, number int, sha string) error {
	if !repoName.MatchString(p.Repo) {
		return fmt.Errorf("%q is no repository (owner/name)", p.Repo)
	}
	if !commitID.MatchString(sha) {
		return fmt.Errorf("%q is no full commit id", sha)
	}
	var found pull
	if _, err := p.read(ctx, p.path("pulls", strconv.Itoa(number)), &found); err != nil {
		return err
	}
	if found.State != "open" || found.Head.SHA != sha {
		return fmt.Errorf("#%d is %s with the head %.12s, not %.12s: %w", number, found.State, found.Head.SHA, sha, ErrMovedOn)
	}
	return nil
}

// Find returns the number of the open pull request whose head is exactly that commit on that branch of that repository.
// It returns ErrMovedOn where there is none. Two pull requests of one branch, into different targets, are an error: what
// is known of the commit was found out against one of them, and nothing that can be trusted says which.
func (p *Poster) Find(ctx context.Context, head Head) (int, error) {
	switch {
	case !repoName.MatchString(p.Repo):
		return 0, fmt.Errorf("%q is no repository (owner/name)", p.Repo)
	case !repoName.MatchString(head.Repo):
		return 0, fmt.Errorf("%q is no repository (owner/name)", head.Repo)
	case !commitID.MatchString(head.SHA):
		return 0, fmt.Errorf("%q is no full commit id", head.SHA)
	case head.Branch == "":
		return 0, errors.New("the branch is missing")
	}
	owner, _, _ := strings.Cut(head.Repo, "/")
	var numbers []int
	err := pages(ctx, p, p.path("pulls"), url.Values{"state": {"open"}, "head": {owner + ":" + head.Branch}}, func(found pull) bool {
		// The filter of the API is a convenience; these are the proof.
		if found.State == "open" && found.Head.Repo != nil && strings.EqualFold(found.Head.Repo.FullName, head.Repo) &&
			found.Head.Ref == head.Branch && found.Head.SHA == head.SHA {
			numbers = append(numbers, found.Number)
		}
		return true
	})
	switch {
	case err != nil:
		return 0, err
	case len(numbers) == 0:
		return 0, fmt.Errorf("%s %s at %.12s: %w", head.Repo, head.Branch, head.SHA, ErrMovedOn)
	case len(numbers) > 1:
		return 0, fmt.Errorf("%s %s is the head of more than one pull request, %v: nothing says for which of them the run was", head.Repo, head.Branch, numbers)
	}
	return numbers[0], nil
}

// Put writes the comment: over the first one of ours that begins with the marker, or anew where there is none. The body
// has to begin with the marker too. Trying again after a failure never makes a second comment: it looks first.
func (p *Poster) Put(ctx context.Context, number int, body string) (Result, error) {
	switch {
	case !repoName.MatchString(p.Repo):
		return Result{}, fmt.Errorf("%q is no repository (owner/name)", p.Repo)
	case !strings.HasPrefix(body, p.Marker):
		return Result{}, errors.New("the comment does not begin with the marker, by which the next run would find it")
	case utf8.RuneCountInString(body) > MaxBody:
		return Result{}, fmt.Errorf("the comment has %d characters: GitHub takes %d", utf8.RuneCountInString(body), MaxBody)
	}
	var result Result
	err := p.retry(ctx, func() error {
		ours, err := p.ours(ctx, number)
		if err != nil {
			return err
		}
		written := entry{}
		content := map[string]string{"body": body}
		switch {
		case ours == nil:
			result.What = "created"
			_, err = p.send(ctx, http.MethodPost, p.path("issues", strconv.Itoa(number), "comments"), content, &written)
		case same(ours.Body, body):
			result.What, written = "unchanged", *ours
		default:
			result.What = "updated"
			_, err = p.send(ctx, http.MethodPatch, p.path("issues", "comments", strconv.FormatInt(ours.ID, 10)), content, &written)
		}
		result.URL = written.URL
		return err
	})
	return result, err
}

// same compares as GitHub keeps a comment: it may end lines by CR LF and drop space at the end.
func same(a, b string) bool {
	plain := func(text string) string { return strings.TrimSpace(strings.ReplaceAll(text, "\r\n", "\n")) }
	return plain(a) == plain(b)
}

// ours returns the first comment that is ours to write over, nil where there is none.
func (p *Poster) ours(ctx context.Context, number int) (*entry, error) {
	var ours *entry
	err := pages(ctx, p, p.path("issues", strconv.Itoa(number), "comments"), url.Values{}, func(e entry) bool {
		if strings.EqualFold(e.User.Login, p.Author) && strings.HasPrefix(e.Body, p.Marker) {
			ours = &e
		}
		return ours == nil
	})
	return ours, err
}

// Foreign returns a body that code from elsewhere made, so that it can be shown under our name: it notifies nobody, and
// says first, below the marker, where it comes from. A body that does not begin with the marker stays as it is, and is
// refused by Put.
func Foreign(body, marker, from string) string {
	rest, ok := strings.CutPrefix(body, marker)
	if !ok {
		return body
	}
	quiet := strings.NewReplacer("@", "@\u200b").Replace(strings.ToValidUTF8(rest, "\ufffd"))
	return marker + "\n> Made by a run of the code of " + strings.NewReplacer("`", "'", "@", "").Replace(from) +
		", which can make it say anything: the check of that run is the verdict, this is its explanation.\n\n" + strings.TrimLeft(quiet, "\n")
}
