package doctor

import "testing"

func TestFrontends(t *testing.T) {
	list := Frontends()
	if len(list) != 3 {
		t.Fatalf("%d frontends", len(list))
	}
	for _, f := range list {
		if f.Reason == "" {
			t.Errorf("%s: usable %t, and not a word why", f.Name, f.Usable)
		}
		t.Logf("%+v", f)
	}
	if list[0].Usable && !list[1].Usable {
		t.Error("a kernel with zero copy can copy too")
	}
}
