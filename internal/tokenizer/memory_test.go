package tokenizer

import (
	"runtime"
	"strings"
	"testing"
)

// TestLongLine: what a line of 100 MB needs beside itself does not grow with it once the ids are cut.
func TestLongLine(t *testing.T) {
	const long, longer, most = 8 << 20, 100 << 20, 4 << 20
	lines := []struct {
		name, unit string
	}{
		{"words", "Free entry in 2 a wkly comp! \u00a31,000 caf\u00e9 \u4eba "},
		{"one word", "freeentry"},
		{"one letter", "x"},
		{"blanks", " "},
		{"accents", "e\u0301"},
		{"marks", "\u0301"},
		{"marks that stay", "\u302e"},
		{"CJK", "\u4eba"},
		{"added tokens", "<mask>[MASK]"},
		{"beginnings of added tokens", "<mas[MAS"},
		{"control characters", "\x00"},
		{"not UTF-8", "a \xff\xff "},
	}
	for _, name := range tiny {
		for _, normalized := range []bool{false, true} {
			tok := load(t, write(t, name, func(f map[string]any) {
				if !normalized {
					f["added_tokens"] = nil
				}
			}))
			for _, l := range lines {
				t.Run(name+" "+l.name, func(t *testing.T) {
					size := long
					if !normalized && !testing.Short() && l.name == "words" {
						size = longer
					}
					line := strings.Repeat(l.unit, size/len(l.unit))
					before := allocated()
					ids := tok.AppendIDs(nil, line, 128)
					if n := allocated() - before; n > most {
						t.Errorf("allocated %d MB for %d ids, want at most %d", n>>20, len(ids), most>>20)
					}
				})
			}
		}
	}
}

// allocated counts every byte that was ever allocated.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
