package transcript

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "github.com/concordat-dev/concordat/gen/go/auth/v1"
	usersv1 "github.com/concordat-dev/concordat/gen/go/users/v1"
)

func texts(entries []Entry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, e.Path+" = "+e.Value)
	}
	return out
}

func TestAMessageIsWrittenDownByTheNamesOfItsFields(t *testing.T) {
	m := &usersv1.GetUserResponse{User: &usersv1.User{
		UserId: "0199a3c0-0000-7000-8000-000000000001", DisplayName: "Ada", State: usersv1.UserState_USER_STATE_ACTIVE, Etag: "secret",
		Labels: map[string]string{"b": "2", "a": "1"}, CreatedAt: timestamppb.Now(), Address: &usersv1.Address{Lines: []string{"x", "y"}},
	}}
	got := texts(Of("answer", m, Shape))
	want := []string{
		`answer.user = {}`, `answer.user.address = {}`, `answer.user.address.lines[0000] = x`, `answer.user.address.lines[0001] = y`,
		`answer.user.created_at = <Timestamp>`, `answer.user.display_name = Ada`, `answer.user.etag = <opaque>`, `answer.user.labels["a"] = 1`,
		`answer.user.labels["b"] = 2`, `answer.user.state = users.v1.USER_STATE_ACTIVE`, `answer.user.user_id = <uuid>`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestExactValuesTellTimesAndIdsApart(t *testing.T) {
	at := func(id string, seconds int64) []string {
		return texts(Of("e", &usersv1.UserEvent{UserId: id, Timestamp: &timestamppb.Timestamp{Seconds: seconds}}, Exact))
	}
	one := at("0199a3c0-0000-7000-8000-000000000001", 1)
	for name, other := range map[string][]string{
		"another id": at("0199a3c0-0000-7000-8000-000000000002", 1), "another time": at("0199a3c0-0000-7000-8000-000000000001", 2),
	} {
		if slices.Equal(one, other) {
			t.Errorf("%s makes no difference: %v", name, one)
		}
	}
}

func TestAnEnumValueWithoutANameIsItsNumber(t *testing.T) {
	got := texts(Of("a", &authv1.GetUserResponse{Role: 77}, Shape))
	if !slices.Equal(got, []string{"a.role = #77"}) {
		t.Error(got)
	}
}

func TestUnknownFieldsAreLeftOut(t *testing.T) {
	m := &authv1.GetUserResponse{}
	if err := proto.Unmarshal([]byte{0x98, 0x06, 0x01}, m); err != nil || len(m.ProtoReflect().GetUnknown()) == 0 {
		t.Fatal("the message has no unknown field", err)
	}
	if got := Of("a", m, Shape); len(got) != 0 {
		t.Error(texts(got))
	}
}

func TestTheVocabularyHasFieldsValuesAndMethods(t *testing.T) {
	words := NewWords(Vocabulary("auth.v1"))
	for _, name := range []string{"auth.v1.GetUserResponse.active", "auth.v1.ROLE_ADMIN", "auth.v1.AuthService.GetUser"} {
		if !words[name] {
			t.Errorf("%s is missing", name)
		}
	}
	if words["users.v1.User.email"] {
		t.Error("it has names of another package")
	}
	if !words.Serves("auth.v1.AuthService/GetUser") || words.Serves("auth.v1.AuthService/Gone") {
		t.Error("it does not know which methods there are")
	}
}

// entry is a value of one field "p.M.<last part of the path>".
func entry(path, value string) Entry {
	return Entry{Path: path, Fields: []string{"p.M." + path}, Value: value}
}

func TestWhatAClientMisreads(t *testing.T) {
	knows := NewWords([]string{"p.M.a", "p.M.b", "p.ONE"})
	for name, row := range map[string]struct {
		saw, own []Entry
		writer   Words
		want     int
	}{
		"nothing":                            {[]Entry{entry("a", "1")}, []Entry{entry("a", "1")}, nil, 0},
		"a field that it does not see":       {nil, []Entry{entry("a", "1")}, nil, 1},
		"another value":                      {[]Entry{entry("a", "2")}, []Entry{entry("a", "1")}, nil, 1},
		"a field that is not there":          {[]Entry{entry("a", "1"), entry("b", "1")}, []Entry{entry("a", "1")}, nil, 1},
		"no field that its version lacks":    {nil, []Entry{entry("later", "1")}, nil, 0},
		"a field that takes another's place": {[]Entry{entry("b", "1")}, []Entry{entry("a", "1")}, nil, 2},
		"no enum value that it lacks":        {[]Entry{entry("a", "#2")}, []Entry{entry("a", "p.TWO")}, nil, 0},
		"an enum value that moved":           {[]Entry{entry("a", "#2")}, []Entry{entry("a", "p.ONE")}, nil, 1},
		"an enum value with another name":    {[]Entry{entry("a", "p.ONE")}, []Entry{entry("a", "p.UNO")}, nil, 1},
		"no number that is no enum's":        {[]Entry{entry("a", "#2")}, []Entry{entry("a", "plain text")}, nil, 1},
		"a field that the writer knows":      {[]Entry{entry("b", "1")}, nil, NewWords([]string{"p.M.b"}), 1},
		"no field that the writer lacks":     {[]Entry{entry("b", "1")}, nil, NewWords([]string{"p.M.a"}), 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Misread(knows, row.saw, row.own, row.writer); len(got) != row.want {
				t.Errorf("%d mistakes, want %d: %q", len(got), row.want, got)
			}
		})
	}
}

func TestWhatAServerNoLongerTells(t *testing.T) {
	before := []Entry{entry("a", "1"), entry("b", "1"), entry("gone", "1")}
	got := Lost(NewWords([]string{"p.M.a", "p.M.b"}), []Entry{entry("a", "2")}, before)
	if len(got) != 1 || !strings.HasPrefix(got[0], "b ") {
		t.Errorf("want b alone: a is told, and the server has no field gone: %q", got)
	}
	if got := Changed([]Entry{entry("a", "2")}, before); len(got) != 1 {
		t.Errorf("want a alone: %q", got)
	}
}
