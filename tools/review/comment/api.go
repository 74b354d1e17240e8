package comment

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// firstPause is how long to wait after the first failure; each later pause is twice as long, up to longestPause.
	firstPause, longestPause = time.Second, 30 * time.Second
	// blindPause is for a rate limit that does not say when it ends: GitHub asks for at least a minute.
	blindPause = time.Minute
	// maxAnswer is how much of an answer is read, in bytes: a page of the longest comments has about 26 MB.
	maxAnswer = 32 << 20
)

// An answerError is an answer that is no success.
type answerError struct {
	what   string // the method and the path
	status int    // 0 where there was no answer at all
	says   string
	// again is set where it may work later, and pause where GitHub says how much later.
	again bool
	pause time.Duration
}

// Error says what was asked, what was answered, and what usually mends it.
func (e *answerError) Error() string {
	text := e.what
	if e.status != 0 {
		text += fmt.Sprintf(": %d %s", e.status, http.StatusText(e.status))
	}
	if e.says != "" {
		text += ": " + e.says
	}
	switch {
	case e.again:
	case e.status == http.StatusUnauthorized:
		text += " (GITHUB_TOKEN is no token of this API)"
	case e.status == http.StatusForbidden, e.status == http.StatusNotFound:
		text += " (the job needs permissions: pull-requests: write; a run for a fork has never more than read)"
	case e.status >= 300 && e.status < 400:
		text += " (was the repository renamed?)"
	}
	return text
}

// path joins what identifies something in the repository.
func (p *Poster) path(parts ...string) string {
	return "/repos/" + p.Repo + "/" + strings.Join(parts, "/")
}

// pages reads a list page by page and hands over each element until take has enough. Pages are counted, not followed: a
// link in an answer never says where the token is sent.
func pages[T any](ctx context.Context, p *Poster, path string, query url.Values, take func(T) bool) error {
	query.Set("per_page", "100")
	for page := 1; ; page++ {
		query.Set("page", strconv.Itoa(page))
		var list []T
		header, err := p.read(ctx, path+"?"+query.Encode(), &list)
		if err != nil {
			return err
		}
		for _, element := range list {
			if !take(element) {
				return nil
			}
		}
		if len(list) == 0 || !strings.Contains(header.Get("Link"), `rel="next"`) {
			return nil
		}
	}
}

// read asks until there is an answer, or the context ends.
func (p *Poster) read(ctx context.Context, path string, into any) (header http.Header, err error) {
	err = p.retry(ctx, func() error {
		header, err = p.send(ctx, http.MethodGet, path, nil, into)
		return err
	})
	return header, err
}

// retry does it until it works, fails in a way that time does not mend, or would have to wait beyond the deadline of the
// context: then the last failure is returned at once.
func (p *Poster) retry(ctx context.Context, do func() error) error {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := do()
		answer, ok := errors.AsType[*answerError](err)
		if !ok || !answer.again {
			return err
		}
		wait := max(pause, answer.pause)
		if deadline, bounded := ctx.Deadline(); bounded && p.Now().Add(wait).After(deadline) {
			// Not wrapped: what is final here is not to be tried again by a retry around this one.
			return fmt.Errorf("no time is left to try again in %s: %v", wait.Round(time.Second), err)
		}
		if stopped := p.Wait(ctx, wait); stopped != nil {
			return fmt.Errorf("%w while waiting to try again: %v", stopped, err)
		}
	}
}

// send sends one request and decodes its answer. A failure of the connection is an answer too: it may work later.
func (p *Poster) send(ctx context.Context, method, path string, content, into any) (http.Header, error) {
	what := method + " " + path
	var body io.Reader
	if content != nil {
		data, err := json.Marshal(content)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, p.API+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/vnd.github+json")
	req.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	req.Header.Set("User-Agent", "concordat-review")
	req.Header.Set("Authorization", "Bearer "+p.Token)
	if content != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	client := *p.Client
	// A redirect of a write would arrive as a read, and look like a success.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	answer, err := client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, &answerError{what: what, says: err.Error(), again: true}
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, &answerError{what: what, status: answer.StatusCode, says: err.Error(), again: true}
	}
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return nil, p.refused(what, answer, data)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return nil, fmt.Errorf("%s: the answer is not what GitHub documents: %w", what, err)
	}
	return answer.Header, nil
}

// refused says what an answer that is no success means, by
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api.
func (p *Poster) refused(what string, answer *http.Response, data []byte) error {
	var says struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(data, &says) != nil {
		says.Message = "" // a page of a proxy, which helps nobody
	}
	e := &answerError{what: what, status: answer.StatusCode, says: says.Message}
	if answer.StatusCode >= 500 {
		e.again = true
	}
	if answer.StatusCode != http.StatusForbidden && answer.StatusCode != http.StatusTooManyRequests {
		return e
	}
	seconds, err := strconv.Atoi(answer.Header.Get("Retry-After"))
	reset, resetErr := strconv.ParseInt(answer.Header.Get("X-RateLimit-Reset"), 10, 64)
	switch {
	case err == nil && seconds >= 0:
		e.again, e.pause = true, time.Duration(seconds)*time.Second
	case answer.Header.Get("X-RateLimit-Remaining") == "0" && resetErr == nil:
		e.again, e.pause = true, max(0, time.Unix(reset, 0).Sub(p.Now()))+time.Second
	case answer.StatusCode == http.StatusTooManyRequests || strings.Contains(strings.ToLower(says.Message), "rate limit"):
		e.again, e.pause = true, blindPause
	}
	return e
}
