// Package membership joins the mesh to the rest: its table is the state layer, its feed is the bus, and this node is a
// member of it.
//
// Table is a mesh.Table over two internal stores (Stores); Feed is a mesh.Feed over the mesh.* topics. Member is the
// service that keeps this node in the registry: it registers when the node listens, sends heartbeats with the real load,
// says shuttingDown before the listener closes, and leaves at the end. A registry or bus that is away is tried again in
// the background; it never keeps the node from serving.
package membership
