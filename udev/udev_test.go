package udev

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

func TestEnsure(t *testing.T) {
	const none = ""
	for _, x := range []struct {
		name               string
		admin, run, packed string
		wrote              bool
	}{
		{"nothing there", none, none, none, true},
		{"package", none, none, Rule, false},
		{"older package", none, none, "old", true},
		{"ours of before", none, Rule, "old", false},
		{"older ours", none, "old", none, true},
		{"older ours before the package's", none, "old", Rule, true},
		{"the administrator's own", "own", none, none, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			dir, reloads := t.TempDir(), 0
			f := Folders{
				filepath.Join(dir, "etc"), filepath.Join(dir, "run/rules.d"), filepath.Join(dir, "usr"),
				func() error { reloads++; return nil },
			}
			for d, content := range map[string]string{f.Admin: x.admin, f.Runtime: x.run, f.Package: x.packed} {
				if err := os.MkdirAll(d, 0o755); err != nil {
					t.Fatal(err)
				}
				if content != none {
					if err := os.WriteFile(filepath.Join(d, Name), []byte(content), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			wrote, err := f.Ensure()
			if err != nil || wrote != x.wrote || wrote != (reloads == 1) {
				t.Errorf("wrote %t, %v, %d reloads", wrote, err, reloads)
			}
			if have, _ := os.ReadFile(filepath.Join(f.Runtime, Name)); wrote && string(have) != Rule {
				t.Error("what it wrote is not the rule")
			}
		})
	}
}

func TestNoUdev(t *testing.T) {
	f := Folders{Runtime: filepath.Join(t.TempDir(), "udev", "rules.d")}
	if wrote, err := f.Ensure(); wrote || err != nil {
		t.Errorf("without udev: wrote %t, %v", wrote, err)
	}
}

// TestSchedulerPattern: the rule writes when another scheduler is in use, whose list has "none" in it too.
func TestSchedulerPattern(t *testing.T) {
	_, rest, _ := strings.Cut(Rule, `ATTR{queue/scheduler}!="`)
	pattern, _, _ := strings.Cut(rest, `"`)
	for list, set := range map[string]bool{
		"[none]": true, "[none] mq-deadline kyber": true, "mq-deadline [none]": true,
		"none [mq-deadline]": false, "[mq-deadline] none": false, "[bfq] mq-deadline none": false,
	} {
		if is, err := path.Match(pattern, list); is != set || err != nil {
			t.Errorf("%s matches %s: %t, %v", pattern, list, is, err)
		}
	}
}

// TestRuleIsOurs: everything stands behind the test for our own devices, and no rule writes what may be so already.
func TestRuleIsOurs(t *testing.T) {
	tested := false
	for line := range strings.Lines(Rule) {
		tested = tested || strings.Contains(line, "TEST!=")
		if attr, _, ok := strings.Cut(line, "}!="); ok && strings.HasPrefix(attr, "ATTR") && strings.Count(line, attr+"}") != 2 {
			t.Errorf("tests one thing and writes another: %s", line)
		}
		if strings.Contains(line, "}=\"") && (!tested || !strings.Contains(line, "}!=")) {
			t.Errorf("writes unasked: %s", line)
		}
	}
}
