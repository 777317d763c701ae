package sagas_test

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/sagas"
)

var draw = flag.String("draw", "", "a folder to write the diagrams to, for looking at them")

// A diagram names every state, transition and undo, and marks where an instance is.
func TestDiagram(t *testing.T) {
	order := built(t, orders())
	charging := &sagas.Instance{Saga: "order", Key: "o-1", Status: sagas.Running, State: "charging"}
	parked := &sagas.Instance{Saga: "order", Key: "o-2 <b>", Status: sagas.Parked, State: "charging",
		Parked: &sagas.Parking{Reason: `the undo of "charging" was refused`, From: sagas.Undoing}, Work: &sagas.Work{Step: sagas.Step{State: "charging"}, Undo: true}}
	mermaid := order.Diagram(charging).Mermaid()
	for _, line := range []string{
		`    state "reserving\npublish stock.reserve\nundo: publish stock.release" as reserving`,
		`    [*] --> reserving: order.placed`, `    reserving --> charging: stock.reserved`, `    reserving --> compensating: after 1m`,
		`    charging --> confirmed: answered`, `    confirmed --> [*]`, `    compensating --> compensated`, `    class charging present`,
	} {
		require.Contains(t, strings.Split(mermaid, "\n"), line)
	}
	require.Contains(t, order.Diagram(parked).Mermaid(), "class compensating parked")
	pictures := map[string]string{"plain": order.Diagram(nil).SVG(), "charging": order.Diagram(charging).SVG(), "parked": order.Diagram(parked).SVG(), "wide": built(t, roundabout()).Diagram(nil).SVG()}
	for name, svg := range pictures {
		decoder := xml.NewDecoder(strings.NewReader(svg))
		for {
			if _, err := decoder.Token(); errors.Is(err, io.EOF) {
				break
			} else {
				require.NoError(t, err, name)
			}
		}
		if *draw != "" {
			require.NoError(t, os.WriteFile(*draw+"/"+name+".svg", []byte(svg), 0o600))
		}
	}
	require.Contains(t, pictures["plain"], ">call payment/refund<")
	require.NotContains(t, pictures["plain"], "#ffe08a")
	require.Contains(t, pictures["charging"], "#ffe08a")
	require.Contains(t, pictures["parked"], "o-2 &lt;b&gt; is parked")
}

// roundabout has edges that go back, over states, and to themselves.
func roundabout() sagas.Definition[Order] {
	d := orders()
	d.Name = "roundabout"
	d.States[0].On = append(d.States[0].On, sagas.When[Order](ofOrder("stock.is-elsewhere"), "waiting", nil))
	d.States[1].On = append(d.States[1].On, sagas.Failed[Order]("reserving", nil))
	d.States = append(d.States, sagas.State[Order]{Name: "waiting", On: []sagas.On[Order]{
		sagas.When[Order](ofOrder("stock.came"), "reserving", nil), sagas.When[Order](ofOrder("stock.comes-later"), "waiting", nil),
		sagas.After[Order](36*time.Hour, "given-up", nil),
	}}, sagas.State[Order]{Name: "given-up", End: true})
	return d
}
