"""The only room that joins runner, store and analysis: every question and every act, once."""
