// Package sagatest runs a saga's definition by itself, against messages that are scripted, reordered, doubled and lost, with a clock that stands
// until nothing else is to be done. The same seed gives the same run.
//
// A [World] has one saga, and the services that it talks to as functions:
//
//	w := sagatest.New(order, sagatest.Chaos{Seed: seed, Delay: time.Second, Double: 0.2, Lose: 0.1})
//	w.Subscribe("stock.reserve", func(c sagatest.Command) { w.Send("stock.reserved", &Reserved{OrderID: key}) })
//	w.Serve("payment", "charge", func(c sagatest.Command) (any, error) { return Charged{}, nil })
//	w.Send("order.placed", &Placed{OrderID: key})
//	w.Run()
//	require.Equal(t, sagas.Completed, w.Instance(key).Status)
//
// What it proves is about the definition and its decisions. That they are kept, whatever is killed, is the engine's to prove.
package sagatest
