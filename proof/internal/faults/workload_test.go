package faults

import (
	"testing"

	"google.golang.org/grpc/status"

	"github.com/concordat-dev/concordat/kit/eventlog"
	"github.com/concordat-dev/concordat/kit/grpcfault"
)

func TestAWatchThatIsCutSaysWhereItGoesOnAndNoOtherDoes(t *testing.T) {
	for name, row := range map[string]struct {
		ended error
		want  string
	}{
		"it goes on":      {nil, ""},
		"it was cut":      {eventlog.ErrSlowConsumer.With(eventlog.MetadataResumeToken, "here"), "here"},
		"the log stops":   {eventlog.ErrStopped.With(eventlog.MetadataResumeToken, "here"), ""},
		"it is too old":   {eventlog.ErrTooOld.With(eventlog.MetadataOldestToken, "there"), ""},
		"nobody knows it": {status.Error(13, "broken"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := row.ended
			if err != nil {
				err = status.FromProto(grpcfault.Status(row.ended, "users.v1")).Err()
			}
			if got := cutAt(err); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}
