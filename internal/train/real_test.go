package train

import (
	"encoding/json"
	"math"
	"testing"
)

func TestRealSurvivesJSON(t *testing.T) {
	for text, want := range map[string]float64{"1.5": 1.5, "-0": 0, `"NaN"`: math.NaN(), `"+Inf"`: math.Inf(1), `"-Inf"`: math.Inf(-1), "1e-45": 1e-45} {
		var r Real
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if math.Float32bits(float32(r)) != math.Float32bits(float32(want)) && float32(r) != float32(want) {
			t.Errorf("%s was read as %v, want %v", text, r, want)
		}
		if body, err := json.Marshal(r); err != nil || string(body) != text {
			t.Errorf("%v was written as %s (%v), want %s", r, body, err, text)
		}
	}
	var r Real
	if err := json.Unmarshal([]byte(`"much"`), &r); err == nil {
		t.Error(`"much" was read as a number`)
	}
}
