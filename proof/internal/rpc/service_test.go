package rpc

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
)

func TestTheMessageOfTheStreamHas100Bytes(t *testing.T) {
	if got := proto.Size(hundredBytes()); got != 100 {
		t.Errorf("it has %d", got)
	}
}

func TestAFeedTellsEveryWatcherEveryEventInOrder(t *testing.T) {
	f := newFeed()
	early := &subscription{at: f.now()}
	f.publish()
	late := &subscription{at: f.now()}
	second := f.publish()
	var events []*event
	for range 2 {
		e, _, err := early.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	e, token, err := late.Next(t.Context())
	if err != nil || e != events[1] || e == events[0] || token == "" {
		t.Errorf("the late one gets %p with %q, the early one %v: %v", e, token, events, err)
	}
	if since := time.Since(second); since < 0 || since > time.Minute {
		t.Errorf("published %v ago", since)
	}
}
