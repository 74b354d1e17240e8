package eventlog

import "testing"

func TestThoseWhoAreLiveShareAMemoOfEachEventAndWhatIsReadLaterHasNone(t *testing.T) {
	onEach(t, func(t *testing.T, fresh func(testing.TB) place) {
		f := openLog(t, fresh(t), options())
		f.run()
		start := f.subscribe("", nil).Position()
		all, some := f.subscribe("", nil), f.subscribe("", func(e Event) bool { return e.Subject != "b" })
		f.append("a", "b", "c")
		wantNext(t, all, "a")
		wantNext(t, some, "a")
		first := all.Memo()
		if first == nil || some.Memo() != first {
			t.Errorf("the memos of one event are %p and %p", first, some.Memo())
		}
		wantNext(t, all, "b", "c")
		wantNext(t, some, "c")
		if third := all.Memo(); third == nil || third == first || some.Memo() != third {
			t.Errorf("the memos of the next event are %p and %p, of the first %p", third, some.Memo(), first)
		}
		// Between the two an erasure may have changed what the event says.
		later := f.subscribe(start, nil)
		wantNext(t, later, "a")
		if later.Memo() != nil {
			t.Error("what was read anew shares what was made of it before")
		}
	})
}
