"""An installation goes in, what is wrong with it and how to mend each comes out."""
