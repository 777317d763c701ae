package sagas_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/sagas"
)

// Each mistake in a definition is told in a sentence that says where it is.
func TestDefinitionIsChecked(t *testing.T) {
	done := sagas.State[Order]{Name: "done", End: true}
	waits := func(name, topic, to string) sagas.State[Order] {
		return sagas.State[Order]{Name: name, On: []sagas.On[Order]{sagas.When[Order](ofOrder(topic), to, nil)}, NoTimeout: true}
	}
	for wrong, change := range map[string]func(d *sagas.Definition[Order]){
		`its name has to be lower-case letters`:                                func(d *sagas.Definition[Order]) { d.Name = "Order" },
		`its version is -1`:                                                    func(d *sagas.Definition[Order]) { d.Version = -1 },
		`nothing starts it`:                                                    func(d *sagas.Definition[Order]) { d.Start = nil },
		`no state is an end`:                                                   func(d *sagas.Definition[Order]) { d.States[2].End = false },
		`state "confirmed" waits for nothing, and is no end`:                   func(d *sagas.Definition[Order]) { d.States[2].End = false },
		`state "lost" cannot be reached`:                                       func(d *sagas.Definition[Order]) { d.States = append(d.States, waits("lost", "a.b", "confirmed")) },
		`state "done" cannot be reached`:                                       func(d *sagas.Definition[Order]) { d.States = append(d.States, done) },
		`state "reserving" is there twice`:                                     func(d *sagas.Definition[Order]) { d.States = append(d.States, d.States[0]) },
		`state "reserving" does something: give it an Undo, or say NoUndo`:     func(d *sagas.Definition[Order]) { d.States[0].Undo = sagas.Command[Order]{} },
		`state "reserving" has an Undo, and says NoUndo`:                       func(d *sagas.Definition[Order]) { d.States[0].NoUndo = true },
		`state "reserving" may wait for ever: give it After, or say NoTimeout`: func(d *sagas.Definition[Order]) { d.States[0].On = d.States[0].On[:1] },
		`state "charging" makes a call, and does not say what follows`:         func(d *sagas.Definition[Order]) { d.States[1].On = d.States[1].On[1:] },
		`state "reserving" waits for the answer of a call, and makes none`:     func(d *sagas.Definition[Order]) { d.States[0].On = append(d.States[0].On, d.States[1].On...) },
		`state "reserving" waits twice for topic stock.reserved`:               func(d *sagas.Definition[Order]) { d.States[0].On = append(d.States[0].On, d.States[0].On[0]) },
		`state "reserving" goes to "nowhere" at topic a.b, which is no state`: func(d *sagas.Definition[Order]) {
			d.States[0].On = append(d.States[0].On, waits("x", "a.b", "nowhere").On...)
		},
		`state "reserving": After has to be more than 0`:               func(d *sagas.Definition[Order]) { d.States[0].On[1] = sagas.After[Order](0, sagas.Compensating, nil) },
		`state "confirmed" is an end: it may publish an event`:         func(d *sagas.Definition[Order]) { d.States[2].Do = d.States[1].Do },
		`policy Late is "keep", which is for Early alone`:              func(d *sagas.Definition[Order]) { d.Policies.Late = sagas.Keep },
		`policy Early is "shrug", which is none`:                       func(d *sagas.Definition[Order]) { d.Policies.Early = "shrug" },
		`state "charging": an undo that is a call has succeeded when`:  func(d *sagas.Definition[Order]) { d.States[1].Undo = d.States[1].Undo.Until(ofOrder("a.b")) },
		`state "reserving": its command has no function that makes it`: func(d *sagas.Definition[Order]) { d.States[0].Do = sagas.Publish[Order]("stock.reserve", nil) },
		`the start waits for events only, not for timeout`: func(d *sagas.Definition[Order]) {
			d.Start = append(d.Start, sagas.After[Order](time.Second, "reserving", nil))
		},
		`states "reserving" and "charging": both undos wait Until stock.released`: func(d *sagas.Definition[Order]) {
			d.States[1].Undo = sagas.Publish("payment.refund", orderEvent).Until(ofOrder("stock.released"))
		},
		`from state "round" no end can be reached`: func(d *sagas.Definition[Order]) {
			d.States = append(d.States, waits("round", "a.b", "round"))
			d.Start = append(d.Start, sagas.When[Order](ofOrder("c.d"), "round", nil))
		},
	} {
		t.Run(wrong, func(t *testing.T) {
			d := orders()
			change(&d)
			_, err := d.Build()
			require.ErrorIs(t, err, sagas.ErrDefinition)
			require.ErrorContains(t, err, wrong)
			require.ErrorContains(t, err, `saga "`+d.Name+`"`)
		})
	}
	_, err := orders().Build()
	require.NoError(t, err)
}
