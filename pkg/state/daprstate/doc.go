// Package daprstate keeps stores in the state components of a sidecar of Dapr, over its HTTP API. It is for services that are moved from Dapr: they run
// on it first, and then on the native driver of the same rows.
//
// Dapr's API cannot do all that package state promises, and this driver does not make up for it by guessing. What it cannot do is ErrUnsupported
// (counting keys, transactions with conditions on Redis), or left empty (versions except on Redis, times of creation and change), or refused
// (numbers that Dapr would round, unless Config.Rounding). The conformance suite lists it all with reasons, as statetest.Features.
//
// A save is answered without an ETag by Dapr. Where the component counts ETags up (state.redis), the next one is known; elsewhere the
// driver reads the key again. If another write came between, the ETag that a save returns is one that no key has: a save on condition of it is
// ErrConflict, as it has to be.
package daprstate
