"""Cost rules: one pure function of shapes for each kind of op; `registry` finds the families of this folder."""
