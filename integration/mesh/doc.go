// Package mesh tests registry, discovery and mappings on real Redis and real brokers.
package mesh
