// Package memorystate is the state driver that keeps stores in the memory of the process. They are gone when it ends.
//
// It needs no other program and no folder, answers in well under a microsecond, and behaves like the other drivers in
// everything but durability: for tests, and for the stores of a single node whose contents may be lost.
package memorystate
