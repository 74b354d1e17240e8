package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	post "github.com/concordat-dev/concordat/tools/review/comment"
	"github.com/concordat-dev/concordat/tools/review/report"
)

// maxBodyFile is how much of a body is read, in bytes: more than GitHub takes, so that what is too long is refused.
const maxBodyFile = 4 * post.MaxBody

type comment struct {
	Repo     string        `required:"" env:"GITHUB_REPOSITORY" help:"The repository of the pull request." placeholder:"OWNER/NAME"`
	Pull     int           `help:"The number of the pull request, where the event that started the run says it." xor:"which" placeholder:"N"`
	From     string        `help:"The repository that the run was for, which may be a fork: with --branch and --sha it finds the pull request." xor:"which" placeholder:"OWNER/NAME"`
	Branch   string        `help:"The branch of --from that the run was for." placeholder:"NAME"`
	SHA      string        `name:"sha" required:"" help:"The commit that the run was for. Nothing is written where the pull request has another head by now." placeholder:"COMMIT"`
	BodyFile string        `required:"" help:"The report, in Markdown: review.md of --reports. Where there is none, the comment says that there is no verdict." placeholder:"FILE"`
	RunURL   string        `name:"run-url" help:"Where the run can be read; stands below the report." placeholder:"URL"`
	API      string        `name:"api" env:"GITHUB_API_URL" default:"https://api.github.com" help:"The root of GitHub's REST API." placeholder:"URL"`
	Author   string        `default:"github-actions[bot]" help:"The account that the token belongs to; comments of others are never written over." placeholder:"LOGIN"`
	Timeout  time.Duration `default:"5m" help:"How long to try, rate limits and failures of GitHub included."`
}

// Run keeps the comment up to date.
func (c *comment) Run(ctx context.Context, out io.Writer) error {
	token := os.Getenv("GITHUB_TOKEN")
	switch {
	case token == "":
		return errors.New("GITHUB_TOKEN is not set: in a workflow it is ${{ github.token }}")
	case c.Pull <= 0 && (c.From == "" || c.Branch == ""):
		return errors.New("say which pull request: --pull, or --from and --branch")
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	poster := post.Poster{
		API: strings.TrimSuffix(c.API, "/"), Repo: c.Repo, Token: token, Author: c.Author, Marker: report.Marker,
		Client: &http.Client{Timeout: 30 * time.Second}, Wait: wait, Now: time.Now,
	}
	number := c.Pull
	if c.From != "" {
		number, err = poster.Find(ctx, post.Head{Repo: c.From, Branch: c.Branch, SHA: c.SHA})
	} else {
		err = poster.Check(ctx, number, c.SHA)
	}
	if errors.Is(err, post.ErrMovedOn) {
		_, err := fmt.Fprintln(out, "nothing to write:", err)
		return err
	}
	if err != nil {
		return err
	}
	result, err := poster.Put(ctx, number, body)
	if err != nil {
		return fmt.Errorf("comment on #%d: %w", number, err)
	}
	_, err = fmt.Fprintln(out, result.What, result.URL)
	return err
}

// body returns what to write: the report, and where it comes from.
func (c *comment) body() (string, error) {
	text, err := readBody(c.BodyFile)
	if errors.Is(err, fs.ErrNotExist) {
		var none bytes.Buffer
		err = report.NoVerdict(&none, "The run ended before there was a report.")
		text = none.String()
	} else if err == nil && c.From != "" && !strings.EqualFold(c.From, c.Repo) {
		text = post.Foreign(text, report.Marker, c.From)
	}
	if err != nil {
		return "", fmt.Errorf("--body-file: %w", err)
	}
	text = strings.TrimRight(text, "\n") + fmt.Sprintf("\n\n<sub>Of %.12s", c.SHA)
	if c.RunURL != "" {
		text += ": [the whole run](" + c.RunURL + ")"
	}
	return text + "</sub>\n", nil
}

// readBody reads a report that may come out of an archive which a stranger's code has filled: a link in it would publish
// any file of this machine.
func readBody(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxBodyFile+1))
	if err == nil && len(data) > maxBodyFile {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxBodyFile)
	}
	return strings.ToValidUTF8(string(data), "\ufffd"), err
}

// wait returns after a time, or with the error of ctx.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
