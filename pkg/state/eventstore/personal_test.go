package eventstore

import (
	"bytes"
	"strconv"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

// Whatever is marked as personal in whatever JSON: it comes back to the byte, and nothing of it is there when the key is gone.
func FuzzPersonal(f *testing.F) {
	for _, seed := range [][3]string{
		{`{"a":1}`, "/a", ""}, {`{"a":{"b":[1,{"c":"\u0064"}]}, "e":null}`, "/a/b/1/c", "/a/b"}, {`[ "x" , 2 ]`, "/0", "/5"}, {`{"":{"~/":"x"}}`, "/", "//~0~1"},
		{`"text"`, "/a", ""}, {`{"a":"$sealed:x"}`, "/a", ""}, {`{"a":"$sealed:x","b":1}`, "/b", ""},
	} {
		f.Add([]byte(seed[0]), seed[1], seed[2])
	}
	secret := bytes.Repeat([]byte{7}, keyBytes)
	aead, err := newAEAD(secret)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, data []byte, one, two string) {
		e := Event{ID: "id", Type: "x", Data: jsontext.Value(data)}
		for _, at := range []jsontext.Pointer{jsontext.Pointer(one), jsontext.Pointer(two)} {
			if at.IsValid() && at != "" {
				e.Personal.Members = append(e.Personal.Members, at)
			}
		}
		if !e.Data.IsValid() || len(e.Personal.Members) == 0 {
			return
		}
		if err := sealEvent(&e, usable{id: "key", aead: aead}); err != nil {
			require.ErrorContains(t, err, sealedPrefix) // a text that looks like one
			return
		}
		require.True(t, e.Data.IsValid())
		open, gone := Recorded{Event: e}, Recorded{Event: e}
		require.NoError(t, open.open(aead))
		require.Equal(t, string(data), string(open.Data))
		require.NoError(t, gone.open(nil))
		require.True(t, gone.Data.IsValid())
		require.Empty(t, gone.Metadata.Key)
		require.Equal(t, bytes.Equal(gone.Data, data), len(gone.Erased) == 0)
	})
}

func TestMarking(t *testing.T) {
	type address struct {
		Street string `json:"street" personal:"data"`
		City   string
	}
	type Inlined struct {
		Mail string `json:"mail,omitempty" personal:"data"`
	}
	type event struct {
		Inlined
		Who     string            `json:"who" personal:"subject"`
		Home    *address          `json:"home"`
		Friends []address         `json:"friends" personal:"data"`
		Notes   map[string]string `json:",omitzero"`
		hidden  address
		Left    address `json:"-"`
	}
	types, err := NewTypes(TypeOf[event]("x", 1))
	require.NoError(t, err)
	e, err := types.Event(event{Who: "ada", hidden: address{}})
	require.NoError(t, err)
	require.Equal(t, Personal{Members: []jsontext.Pointer{"/mail", "/home/street", "/friends"}, Subject: "ada"}, e.Personal)

	_, err = NewTypes(TypeOf[struct{ List []address }]("x", 1))
	require.ErrorContains(t, err, "mark the field itself")
	_, err = NewTypes(TypeOf[struct {
		A string `personal:"yes"`
	}]("x", 1))
	require.ErrorContains(t, err, `"data"`)
	_, err = NewTypes(TypeOf[struct {
		A int `personal:"subject"`
	}]("x", 1))
	require.Error(t, err)
}

func TestParseMasterKeys(t *testing.T) {
	const key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
	for _, text := range []string{"", "\n", "short", key[:40], "x" + key, key + "\nsecret-of-mine"} {
		_, err := ParseMasterKeys(text)
		require.Error(t, err, strconv.Quote(text))
		require.NotContains(t, err.Error(), "secret-of-mine")
	}
	keys, err := ParseMasterKeys("\n " + key + " \r\n\n")
	require.NoError(t, err)
	require.Len(t, keys, 1)
}

func TestCompare(t *testing.T) {
	for _, c := range []struct{ before, after, want string }{
		{`{"a":1,"b":[1,2],"c":"\u0041"}`, ` {"c":"A","b":[1,2], "a": 1} `, ``},
		{`{"a":1,"b":{"c":[1,{"d":2}]}}`, `{"b":{"c":[1,{"d":3},4]},"e":null}`, `/a:1- /b/c/1/d:2-3 /b/c/2:-4 /e:-null `},
		{`1`, `"1"`, `:1-"1" `},
		{`9007199254740993`, `9007199254740992`, `:9007199254740993-9007199254740992 `},
	} {
		changes, err := Compare(jsontext.Value(c.before), jsontext.Value(c.after))
		require.NoError(t, err)
		text := ""
		for _, change := range changes {
			text += string(change.Path) + ":" + string(change.Before) + "-" + string(change.After) + " "
		}
		require.Equal(t, c.want, text)
	}
	_, err := Compare(jsontext.Value(`{`), jsontext.Value(`1`))
	require.Error(t, err)
}
