package hubtest

import (
	"path"
	"strings"
)

// info is the answer of /api/{models,datasets}/owner/name/revision/rev.
type info struct {
	ID       string    `json:"id"`
	SHA      string    `json:"sha"`
	Private  bool      `json:"private"`
	Disabled bool      `json:"disabled"`
	Gated    bool      `json:"gated"`
	Tags     []string  `json:"tags"`
	Siblings []sibling `json:"siblings"`
}

// sibling is a file in info; all but its name is there only with ?blobs=true.
type sibling struct {
	Name   string `json:"rfilename"`
	Size   *int64 `json:"size,omitempty"`
	BlobID string `json:"blobId,omitempty"`
	LFS    *lfs   `json:"lfs,omitempty"`
}

type lfs struct {
	SHA256      string `json:"sha256,omitempty"` // in info
	OID         string `json:"oid,omitempty"`    // in a tree
	Size        int64  `json:"size"`
	PointerSize int    `json:"pointerSize"`
}

func (r repo) info(commit string, entries []entry, blobs bool) info {
	out := info{ID: r.name, SHA: commit, Tags: []string{}, Siblings: []sibling{}}
	for _, e := range entries {
		s := sibling{Name: e.path}
		if blobs {
			s.Size, s.BlobID = &e.size, e.oid
			if e.sha256 != "" {
				s.LFS = &lfs{SHA256: e.sha256, Size: e.size, PointerSize: len(pointer(e.sha256, e.size))}
			}
		}
		out.Siblings = append(out.Siblings, s)
	}
	return out
}

// node is a file or a folder in the answer of /tree/ and /paths-info/.
type node struct {
	Type string `json:"type"` // "file" or "directory"
	OID  string `json:"oid"`
	Size int64  `json:"size"`
	Path string `json:"path"`
	LFS  *lfs   `json:"lfs,omitempty"`
}

// tree lists what is below a folder; folders come before what they hold.
func tree(entries []entry, below string, recursive bool) []node {
	nodes, seen := []node{}, map[string]bool{}
	for _, e := range entries {
		rest := e.path
		if below != "" {
			var ok bool
			if rest, ok = strings.CutPrefix(e.path, below+"/"); !ok {
				continue
			}
		}
		parts := strings.Split(rest, "/")
		for i := 1; i < len(parts) && (recursive || i == 1); i++ {
			dir := path.Join(below, strings.Join(parts[:i], "/"))
			if !seen[dir] {
				seen[dir] = true
				nodes = append(nodes, node{Type: "directory", OID: gitOID([]byte(dir)), Path: dir})
			}
		}
		if len(parts) > 1 && !recursive {
			continue
		}
		n := node{Type: "file", OID: e.oid, Size: e.size, Path: e.path}
		if e.sha256 != "" {
			n.LFS = &lfs{OID: e.sha256, Size: e.size, PointerSize: len(pointer(e.sha256, e.size))}
		}
		nodes = append(nodes, n)
	}
	return nodes
}
