package users

import (
	"context"
	"errors"
	"fmt"
	"time"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/service"
)

// fill imports the users, the few and the many, each by one stream.
func (r *run) fill(ctx context.Context, p *pair) ([]figure.Figure, error) {
	if _, err := r.load(ctx, p.small, r.small, func(int) {}); err != nil {
		return nil, err
	}
	used, err := watchMemory(p.large.PID())
	if err != nil {
		return nil, err
	}
	before, err := p.large.Used(p.server)
	if err != nil {
		return nil, err
	}
	early := 0.0
	took, err := r.load(ctx, p.large, r.large, func(n int) {
		switch n {
		case r.large / 10:
			early = used.soFar()
		case r.large * 4 / 5:
			p.profiled.begin(ctx, p.large, "import", 10*time.Second)
		}
	})
	growth, merr := used.growth()
	after, aerr := p.large.Used(p.server)
	if err := errors.Join(err, merr, aerr); err != nil {
		return nil, err
	}
	for _, data := range p.databases {
		if err := data.Vacuum(ctx); err != nil {
			return nil, err
		}
	}
	rate := float64(r.large) / took.Seconds()
	r.out.Table(p.engine+": CreateUsers, one stream", [][]string{
		append([]string{"users", "a second", "MiB resident before", "more at most", "of that in the first tenth"}, service.CostHeads(p.server)...),
		append([]string{
			fmt.Sprint(r.large), fmt.Sprintf("%.0f", rate), fmt.Sprintf("%.0f", float64(used.before)/mebibytes), fmt.Sprintf("%.1f", growth), fmt.Sprintf("%.1f", early),
		}, after.Since(before).Each(r.large)...),
	})
	return []figure.Figure{
		figure.Median("users."+p.engine+"_import", []float64{rate}),
		figure.Median("users."+p.engine+"_import_rss", []float64{growth}),
	}, nil
}

// load imports the first count users and returns how long that took. Before each it calls each.
func (r *run) load(ctx context.Context, s *service.Process, count int, each func(n int)) (time.Duration, error) {
	conn, err := r.dial(s)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	began := time.Now()
	stream, err := usersv1.NewUserServiceClient(conn).CreateUsers(ctx)
	if err != nil {
		return 0, err
	}
	for n := range count {
		each(n)
		if err := stream.Send(&usersv1.CreateUsersRequest{User: person(n)}); err != nil {
			break // CloseAndRecv says why
		}
	}
	answer, err := stream.CloseAndRecv()
	if err != nil {
		return 0, fmt.Errorf("import: %w", err)
	}
	if int(answer.GetCreatedCount()) != count || answer.GetFailedCount() != 0 {
		return 0, fmt.Errorf("import: %d of %d users were made, %d failed: %v", answer.GetCreatedCount(), count, answer.GetFailedCount(), answer.GetFailures()[:1])
	}
	return time.Since(began), nil
}
