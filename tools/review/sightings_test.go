package review

import "testing"

// What is included in another finding is excused by that one, as far as that one counts.
func TestAFindingIsExcusedOnlyByOneThatCountsAgainstTheSameBaselines(t *testing.T) {
	at := func(baseline string, counted bool, within ...string) sighting {
		return sighting{baseline, counted, within}
	}
	for _, row := range []struct {
		name string
		s    sightings
		want string
	}{
		{"the message counts", sightings{"field": {at("base", true, "message")}, "message": {at("base", true)}}, "message"},
		{"the outermost that counts", sightings{"field": {at("base", true, "file", "message")}, "message": {at("base", true, "file")}, "file": {at("base", true)}}, "file"},
		{"the file is hidden, the message counts", sightings{"field": {at("base", true, "file", "message")}, "message": {at("base", true, "file")}, "file": {at("base", false)}}, "message"},
		{"the message is hidden", sightings{"field": {at("base", true, "message")}, "message": {at("base", false)}}, ""},
		{"the message was dropped", sightings{"field": {at("base", true, "message")}}, ""},
		{"the message counts against another baseline", sightings{"field": {at("release", true, "message")}, "message": {at("base", true)}}, ""},
		{"it counts against one of two", sightings{"field": {at("base", true, "message"), at("release", true, "message")}, "message": {at("base", true), at("release", false)}}, ""},
		{"two baselines, of which each has its own", sightings{"field": {at("base", true, "message"), at("release", true, "older")}, "message": {at("base", true)}, "older": {at("release", true)}}, "message"},
		{"nothing includes it", sightings{"field": {at("base", true)}}, ""},
	} {
		if got := row.s.includer("field"); got != row.want {
			t.Errorf("%s: excused by %q; want %q", row.name, got, row.want)
		}
	}
}
