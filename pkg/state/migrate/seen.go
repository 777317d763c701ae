package migrate

import "hash/maphash"

// seen tells which keys of a walk are met for the first time. Engines that walk in the order of the keys meet none twice; of the others
// every key is remembered, in about 16 bytes each.
type seen struct {
	seed   maphash.Seed
	hashes map[uint64]struct{} // nil: they come in order
	last   string
	n      int
}

// inOrder is after how many keys in order it is believed that all are.
const inOrder = 1000

func newSeen() *seen {
	return &seen{seed: maphash.MakeSeed(), hashes: map[uint64]struct{}{}}
}

// fresh returns the keys that were not met before.
func (s *seen) fresh(keys []string) []string {
	fresh := make([]string, 0, len(keys))
	for _, key := range keys {
		if s.hashes == nil {
			if key > s.last {
				s.last = key
				fresh = append(fresh, key)
			}
			continue
		}
		hash := maphash.String(s.seed, key)
		if _, known := s.hashes[hash]; known {
			continue
		}
		s.hashes[hash] = struct{}{}
		fresh = append(fresh, key)
		if key > s.last && s.n >= 0 {
			s.n++
		} else {
			s.n = -1 // out of order: never believed
		}
		s.last = key
		if s.n == inOrder {
			s.hashes = nil
		}
	}
	return fresh
}
