"""Reports of drills: figures as JSON, and one self-contained page. All but `report_os` beside it is pure."""
