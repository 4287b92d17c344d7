package grafana

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// TestDashboard reads the dashboard into Grafana's own types, which must know every field of it, and looks at what the types
// leave open: ids, places and data sources.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("duratune.json")
	if err != nil {
		t.Fatal(err)
	}
	plugins.RegisterDefaultPlugins()
	var d dashboard.Dashboard //nolint:staticcheck // version 1 of the format, which every Grafana reads
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var ours, known any
	if err := errors.Join(json.Unmarshal(text, &ours), json.Unmarshal(again, &known)); err != nil {
		t.Fatal(err)
	}
	checkKnown(t, "dashboard", ours, known)
	if err := d.Validate(); err != nil {
		t.Error(err)
	}
	ids, taken := map[uint32]bool{}, map[[2]uint32]string{}
	for _, row := range d.Panels {
		p := row.Panel
		if p == nil || p.Title == nil || p.Id == nil || ids[*p.Id] {
			t.Fatalf("a panel without title or an id of its own: %+v", row)
		}
		ids[*p.Id] = true
		if p.Datasource == nil || p.Datasource.Uid == nil || *p.Datasource.Uid != "${datasource}" {
			t.Errorf("%s: its data source is not the dashboard's variable", *p.Title)
		}
		if p.Description == nil || *p.Description == "" || p.FieldConfig == nil || p.FieldConfig.Defaults.Unit == nil {
			t.Errorf("%s: no description or no unit", *p.Title)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]uint32{p.GridPos.X + x, p.GridPos.Y + y}
				if other := taken[at]; other != "" || at[0] >= 24 {
					t.Fatalf("%s lies on %q, or outside", *p.Title, other)
				}
				taken[at] = *p.Title
			}
		}
	}
}

// checkKnown expects all of ours within known.
func checkKnown(t *testing.T, path string, ours, known any) {
	t.Helper()
	switch ours := ours.(type) {
	case map[string]any:
		fields, _ := known.(map[string]any)
		for key, value := range ours {
			checkKnown(t, path+"."+key, value, fields[key])
		}
	case []any:
		items, _ := known.([]any)
		if len(items) != len(ours) && len(ours) > 0 {
			t.Fatalf("%s: %d items, Grafana knows %d", path, len(ours), len(items))
		}
		for i, value := range ours {
			checkKnown(t, fmt.Sprintf("%s[%d]", path, i), value, items[i])
		}
	default:
		if ours != known {
			t.Errorf("%s: %v is %v to Grafana", path, ours, known)
		}
	}
}
