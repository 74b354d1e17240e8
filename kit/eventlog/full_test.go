package eventlog

import (
	"testing"
	"time"

	"github.com/concordat-dev/concordat/kit/sqldb"
)

// fullDisk fills the disk of PostgreSQL, as far as the log is concerned: no event gets a number until room is
// called. tried says whether somebody has met it.
func (f *fixture) fullDisk() (tried func() bool, room func()) {
	f.t.Helper()
	for _, statement := range []string{
		`CREATE SEQUENCE refused`, // what it counts outlives the rollback
		`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nextval('refused');
    RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100';
END
$$`,
		`CREATE TRIGGER full_disk BEFORE INSERT ON event_log FOR EACH ROW EXECUTE FUNCTION refuse()`,
	} {
		f.exec(statement)
	}
	tried = func() (is bool) {
		f.t.Helper()
		err := f.db.ReadOne(f.t.Context(), func(q sqldb.Querier) error {
			return q.QueryRowContext(f.t.Context(), `SELECT is_called FROM refused`).Scan(&is)
		})
		if err != nil {
			f.t.Fatal(err)
		}
		return is
	}
	return tried, func() { f.exec(`DROP TRIGGER full_disk ON event_log`) }
}

func TestALogOutlivesAFullDisk(t *testing.T) {
	f := openLog(t, freshPostgres(t), options())
	s := f.subscribe("", nil)
	tried, room := f.fullDisk()
	f.run()
	if err := f.write(Event{Subject: "a", Type: "T"}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); !tried(); {
		if time.Now().After(deadline) {
			t.Fatal("the log that runs has not tried to number the event")
		}
	}
	room()
	wantNext(t, s, "a")
}

func TestALogIsOpenedWhileTheDiskIsFull(t *testing.T) {
	at := freshPostgres(t)
	dead := openLog(t, at, options())
	dead.append("a")
	s := dead.subscribe("", nil)
	token := s.Position()
	tried, room := dead.fullDisk()
	if err := dead.write(Event{Subject: "b", Type: "T"}); err != nil { // its log does not run
		t.Fatal(err)
	}
	f := openLog(t, at, options())
	if !tried() {
		t.Error("it was opened without an attempt to number what was there")
	}
	if all, err := f.log.readAll(t.Context()); err != nil || len(all) != 1 || all[0].Subject != "a" {
		t.Errorf("while the disk is full the log has %v, %v", all, err)
	}
	f.run()
	s = f.subscribe(token, nil)
	room()
	wantNext(t, s, "b")
}
