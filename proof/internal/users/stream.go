package users

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
	"github.com/concordat-dev/concordat/proof/internal/figure"
	"github.com/concordat-dev/concordat/proof/internal/histogram"
	"github.com/concordat-dev/concordat/proof/internal/load"
	"github.com/concordat-dev/concordat/proof/internal/service"
)

// streamTime is what the calls of streams say that they will wait; it does not come up.
const streamTime = 5 * time.Minute

// stream reads all users by one StreamUsers.
func (r *run) stream(ctx context.Context, p *pair) ([]figure.Figure, error) {
	var rates, growths []float64
	first, err := p.large.Used(p.server)
	if err != nil {
		return nil, err
	}
	request := &load.Request{Method: usersv1.UserService_StreamUsers_FullMethodName, Timeout: streamTime}
	for round := range r.streams {
		used, err := watchMemory(p.large.PID())
		if err != nil {
			return nil, err
		}
		if round == r.streams-1 {
			p.profiled.begin(ctx, p.large, "stream", 5*time.Second)
		}
		conns, closeAll, err := p.large.Connect(ctx, 1)
		if err != nil {
			return nil, err
		}
		began := time.Now()
		count, err := load.Whole(conns[0], request)
		took := time.Since(began)
		closeAll()
		growth, merr := used.growth()
		if err = errors.Join(err, merr); err != nil {
			return nil, err
		}
		if count != r.large {
			return nil, fmt.Errorf("%d of %d users were streamed", count, r.large)
		}
		rates, growths = append(rates, float64(count)/took.Seconds()), append(growths, growth)
	}
	last, err := p.large.Used(p.server)
	if err != nil {
		return nil, err
	}
	r.out.Table(fmt.Sprintf("%s: StreamUsers of all, one stream, median of %d", p.engine, r.streams), [][]string{
		append([]string{"users a second", "more MiB resident at most, of each"}, service.CostHeads(p.server)...),
		append([]string{fmt.Sprintf("%.0f", figure.Median("", rates).Value), fmt.Sprintf("%.1f", growths)}, last.Since(first).Each(r.large*r.streams)...),
	})
	return []figure.Figure{
		figure.Median("users."+p.engine+"_stream", rates), figure.Median("users."+p.engine+"_stream_rss", growths),
	}, nil
}

// eventRate is how many changes a second are made while they are watched.
const eventRate = 50

// watch measures how long it takes until each watcher has a change, from the moment at which the change was due to be asked
// for.
func (r *run) watch(ctx context.Context, p *pair) ([]figure.Figure, error) {
	var middle, p99, most, asked []float64
	first, err := p.large.Used(p.server)
	if err != nil {
		return nil, err
	}
	for round := range r.watches {
		if round == r.watches-1 {
			p.profiled.begin(ctx, p.large, "watch", time.Duration(r.events)*time.Second/eventRate)
		}
		arrived, calls, err := r.watched(ctx, p.large, round)
		if err != nil {
			return nil, err
		}
		middle, p99 = append(middle, milliseconds(arrived.Quantile(0.5))), append(p99, milliseconds(arrived.Quantile(0.99)))
		most, asked = append(most, milliseconds(arrived.Quantile(1))), append(asked, milliseconds(calls.Quantile(0.99)))
	}
	median := func(values []float64) string { return fmt.Sprintf("%.1f", figure.Median("", values).Value) }
	last, err := p.large.Used(p.server)
	if err != nil {
		return nil, err
	}
	r.out.Table(fmt.Sprintf("%s: %d watchers, %d changes a second, ms until a watcher has one, medians of %d rounds", p.engine, r.watchers, eventRate, r.watches), [][]string{
		append([]string{"p50", "p99", "last", "p99 of the call that makes the change"}, service.CostHeads(p.server)...),
		append([]string{median(middle), median(p99), median(most), median(asked)}, last.Since(first).Each(r.events*r.watches*r.watchers)...),
	})
	return []figure.Figure{figure.Median("users."+p.engine+"_event_p99", p99)}, nil
}

// watched has users changed while all watch.
func (r *run) watched(ctx context.Context, s *service.Process, round int) (arrived, calls *histogram.Histogram, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.events)*time.Second/eventRate+patience)
	defer cancel()
	conns, closeAll, err := s.Connect(ctx, connections)
	if err != nil {
		return nil, nil, err
	}
	defer closeAll()
	request := &load.Request{Method: usersv1.UserService_WatchUsers_FullMethodName, Timeout: streamTime}
	watchers := load.Subscribe(ctx, conns, request, r.watchers, 1+r.events) // the first message is the resume point
	if err := watchers.Await(0); err != nil {
		return nil, nil, err
	}
	conn, err := r.dial(s)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	client := usersv1.NewUserServiceClient(conn)
	due, calls := make([]time.Time, r.events), &histogram.Histogram{}
	began := time.Now()
	for n := range r.events {
		due[n] = began.Add(time.Duration(n) * time.Second / eventRate)
		time.Sleep(time.Until(due[n]))
		_, err := client.UpdateUser(ctx, &usersv1.UpdateUserRequest{
			User:       &usersv1.User{UserId: personID(n), LastName: fmt.Sprintf("Renamed %d", round)},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"last_name"}}, RequestId: uuid.NewString(),
		})
		if err != nil {
			return nil, nil, fmt.Errorf("change a user: %w", err)
		}
		calls.Record(time.Since(due[n]))
	}
	arrived = &histogram.Histogram{}
	for n := range r.events {
		if err := watchers.Await(1 + n); err != nil {
			return nil, nil, err
		}
		for _, at := range watchers.Arrived[1+n] {
			arrived.Record(at.Sub(due[n]))
		}
	}
	return arrived, calls, nil
}
