package faults

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"

	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
)

// auditRow is how much longer an audit may take for each user.
const auditRow = 200 * time.Microsecond

// Audit implements Workload. It holds the users, and then the events, against the book.
func (u *users) Audit(ctx context.Context, conn *grpc.ClientConn, by time.Time, cursor *Cursor) (Audit, error) {
	u.mu.Lock()
	rows := time.Duration(len(u.order))
	u.mu.Unlock()
	// A restart every 20 s leaves half a million users, and as many events, to be read on processors that others use.
	ctx, cancel := context.WithTimeout(ctx, 2*patience+rows*auditRow)
	defer cancel()
	client := usersv1.NewUserServiceClient(conn)
	found, err := all(ctx, client)
	if err != nil {
		return Audit{}, err
	}
	a := u.compare(found, by)
	if cursor == nil {
		cursor = &Cursor{}
	}
	if cursor.token == "" {
		cursor.token, cursor.told = u.token, make(map[string]int)
	}
	if err := u.events(ctx, client, cursor, &a); err != nil {
		return a, err
	}
	for email, list := range found {
		if !strings.HasPrefix(email, marker) && cursor.told[email] != 1 {
			a.wrong("%s is there, and %d events tell that it was made", email, cursor.told[email])
		}
		for _, user := range list {
			if number := numberOf(user.GetDisplayName()); number > 0 && cursor.told[told(email, number)] != 1 {
				a.wrong("%s has its change %d, of which %d events tell", email, number, cursor.told[told(email, number)])
			}
		}
	}
	return a, nil
}

// compare holds the users against the book.
func (u *users) compare(found map[string][]*usersv1.User, by time.Time) (a Audit) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range u.order {
		list := found[r.email]
		a.Doubled += max(len(list)-1, 0)
		done := 0 // the last change that was acknowledged
		for i, c := range r.changes {
			if !c.done.IsZero() && !c.done.After(by) {
				done = i + 1
			}
		}
		a.Acknowledged += done
		acknowledged := !r.seen.IsZero() && !r.seen.After(by)
		if acknowledged {
			a.Acknowledged++
		}
		if len(list) == 0 {
			a.Lost += done
			if acknowledged {
				a.Lost++
			}
			continue
		}
		switch number := numberOf(list[0].GetDisplayName()); {
		case number < 0 || number > len(r.changes):
			a.wrong("%s has the display name %q, which nobody asked for", r.email, list[0].GetDisplayName())
		case number < done:
			a.Lost += done - number
		}
		if r.id != "" && list[0].GetUserId() != r.id {
			a.wrong("%s has the id %s, and had %s", r.email, list[0].GetUserId(), r.id)
		}
	}
	for email := range found {
		if u.rows[email] == nil && !strings.HasPrefix(email, marker) {
			a.wrong("%q is there, whom nobody asked for", email)
		}
	}
	return a
}

// events reads the events from the cursor up to those of a user that is made now.
func (u *users) events(ctx context.Context, client usersv1.UserServiceClient, cursor *Cursor, a *Audit) error {
	key := u.newID()
	end := marker + key + "@example.com"
	if _, err := client.CreateUser(ctx, &usersv1.CreateUserRequest{Email: end, DisplayName: name(0), RequestId: key}); err != nil {
		return fmt.Errorf("mark the end of the events: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.WatchUsers(ctx, &usersv1.WatchUsersRequest{ResumeToken: cursor.token})
	if err != nil {
		return err
	}
	for {
		resp, err := stream.Recv()
		if token := cutAt(err); token != "" {
			cursor.token = token
			if stream, err = client.WatchUsers(ctx, &usersv1.WatchUsersRequest{ResumeToken: token}); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("read the events: %w", err)
		}
		cursor.token = resp.GetResumeToken()
		if resp.GetEvent() == nil {
			continue
		}
		email, what := resp.GetEvent().GetUser().GetEmail(), ""
		switch resp.GetEvent().GetEventType() {
		case usersv1.UserEventType_USER_EVENT_TYPE_CREATED:
			if what = email; email == end {
				return nil
			}
		case usersv1.UserEventType_USER_EVENT_TYPE_UPDATED:
			what = told(email, numberOf(resp.GetEvent().GetUser().GetDisplayName()))
		default:
			a.wrong("an event %s of %s, which nobody caused", resp.GetEvent().GetEventType(), email)
			continue
		}
		if cursor.told[what]++; cursor.told[what] > 1 {
			a.Doubled++
		}
	}
}

// told is what an event of a change tells.
func told(email string, number int) string { return fmt.Sprintf("%s: %d", email, number) }

// numberOf returns which change a display name is, or -1.
func numberOf(display string) int {
	var number int
	if _, err := fmt.Sscanf(display, "name %d", &number); err != nil || name(number) != display {
		return -1
	}
	return number
}
